"""Migrations: each is applied once, whoever runs them and however often, and none that is not known to be right."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from latchgate_server.core.errors import StoreUnavailable
from latchgate_server.storage.failures import StatementRefused
from latchgate_server.storage.migrate import SchemaProblem, check_schema, migrate, migrations, pending
from latchgate_server.storage.pool import create_pool
from tests.storage.schema_dump import SCHEMA, dump
from tests.support.postgres import Postgres

LEASE = 3.0


@pytest.fixture
def empty_database(postgres: Postgres) -> str:
    """A database with nothing in it."""
    return postgres.new_database(migrated=False)


@pytest.fixture
def another_database(postgres: Postgres) -> str:
    """Another one."""
    return postgres.new_database(migrated=False)


@pytest.fixture
async def pool(empty_database: str) -> AsyncIterator[asyncpg.Pool]:
    made = await create_pool(empty_database, LEASE, 2)
    yield made
    await made.close()


APPLIED_SOMEWHERE = {
    1: "6694c697b37ee02a8fc9a81cb5e2da77702febc51d83cba4bf5724829c17952c",
    2: "f80a9a80332eb191dd5015b18f1e3595c0a4ac93ed6f7d2eb96afca2aa2cd2c2",
    3: "83b7d56afd2dbfbb200db8aae23630f9853d4633755632496702307c67ee0750",
    4: "2c59861e81da41faf4bafeaf35c66029007f041bff9b88428436527a96191fec",
    5: "91733ebd9dbb3266ac2ba17e5dbff59713d6f37898d6eacecdc55a42453639ac",
    6: "3705695fdb0c54325ff3e7510fd7aae7dfcf8e97a335bce483c84a0ac52d387e",
}
"""The digest of each migration as databases have it; a new one is added here."""


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def test_all_migrations_applied_make_the_committed_schema(empty_database: str) -> None:
    """schema.sql is what reviewers read; `python -m tests.storage.schema_dump` writes it anew."""
    await migrate(empty_database, LEASE)
    assert dump(empty_database) == SCHEMA.read_text(encoding="utf-8")


def test_migrations_are_numbered_without_gaps_and_named() -> None:
    assert [migration.version for migration in migrations()] == list(range(1, len(migrations()) + 1))
    assert all(migration.name for migration in migrations())


def test_no_migration_is_edited_once_databases_have_it() -> None:
    """A database that has another file's would be refused; what is to change, a further migration changes."""
    assert {migration.version: migration.digest for migration in migrations()} == APPLIED_SOMEWHERE


async def test_migrating_twice_does_nothing_the_second_time(empty_database: str, pool: asyncpg.Pool) -> None:
    first = await migrate(empty_database, LEASE)
    assert [migration.version for migration in first.applied] == [migration.version for migration in migrations()]
    ledger = await pool.fetch("SELECT version, name, digest, apply_time FROM schema_migrations")
    key = await pool.fetchval("SELECT key_id_tag_key FROM deployment")
    assert (await migrate(empty_database, LEASE)).applied == []
    assert await pool.fetch("SELECT version, name, digest, apply_time FROM schema_migrations") == ledger
    assert await pool.fetchval("SELECT key_id_tag_key FROM deployment") == key


async def test_migrations_from_several_places_at_once_are_applied_once(empty_database: str) -> None:
    done = await asyncio.gather(*(migrate(empty_database, LEASE) for _ in range(4)))
    assert sorted(len(migrated.applied) for migrated in done) == [0, 0, 0, len(migrations())]


async def test_a_schema_is_current_only_once_it_is_migrated(empty_database: str, pool: asyncpg.Pool) -> None:
    with pytest.raises(SchemaProblem, match="run: latchgate migrate"):
        await check_schema(pool)
    await migrate(empty_database, LEASE)
    await check_schema(pool)


async def test_a_migration_that_was_edited_after_it_was_applied_is_refused(
    empty_database: str, pool: asyncpg.Pool
) -> None:
    await migrate(empty_database, LEASE)
    await _execute(empty_database, "UPDATE schema_migrations SET digest = 'another' WHERE version = 1")
    for refused in (migrate(empty_database, LEASE), check_schema(pool)):
        with pytest.raises(SchemaProblem, match="migration 1 was applied from another file"):
            await refused


async def test_what_is_missing_is_told_without_changing_anything(empty_database: str, pool: asyncpg.Pool) -> None:
    everything = [migration.version for migration in migrations()]
    assert [migration.version for migration in await pending(empty_database)] == everything
    assert await pool.fetchval("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == 0
    await migrate(empty_database, LEASE)
    assert await pending(empty_database) == []
    await _execute(empty_database, f"DELETE FROM schema_migrations WHERE version = {everything[-1]}")
    assert [migration.version for migration in await pending(empty_database)] == everything[-1:]


async def test_a_ledger_that_an_early_version_made_is_read_and_completed(
    empty_database: str, pool: asyncpg.Pool
) -> None:
    await migrate(empty_database, LEASE)
    await _execute(empty_database, "ALTER TABLE schema_migrations DROP COLUMN compatible_from")
    await check_schema(pool)
    await migrate(empty_database, LEASE)
    assert dump(empty_database) == SCHEMA.read_text(encoding="utf-8")


async def test_a_schema_of_a_newer_version_is_refused(empty_database: str, pool: asyncpg.Pool) -> None:
    await migrate(empty_database, LEASE)
    await _execute(empty_database, "INSERT INTO schema_migrations (version, name, digest) VALUES (9999, 'future', 'x')")
    for refused in (migrate(empty_database, LEASE), check_schema(pool)):
        with pytest.raises(SchemaProblem, match="upgrade Latchgate"):
            await refused


async def test_a_migration_that_fails_leaves_nothing_behind(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from latchgate_server.storage import migrate as module

    broken = module.Migration(len(migrations()) + 1, "broken", "CREATE TABLE half (x integer); SELECT 1 / 0;")
    known = [*migrations(), broken]
    monkeypatch.setattr(module, "migrations", lambda: known)
    with pytest.raises(StatementRefused, match="DivisionByZeroError"):
        await migrate(empty_database, LEASE)
    connection = await asyncpg.connect(empty_database)
    try:
        assert await connection.fetchval("SELECT to_regclass('half')") is None
        assert await connection.fetchval("SELECT max(version) FROM schema_migrations") == len(migrations())
    finally:
        await connection.close()
    monkeypatch.undo()
    assert (await migrate(empty_database, LEASE)).applied == []


async def test_a_database_that_is_not_there_is_told_plainly(postgres: Postgres) -> None:
    with pytest.raises(StoreUnavailable):
        await migrate(postgres.database_url("nowhere"), LEASE)


async def test_every_deployment_has_a_tag_key_of_its_own(empty_database: str, another_database: str) -> None:
    keys = set()
    for url in (empty_database, another_database):
        await migrate(url, LEASE)
        connection = await asyncpg.connect(url)
        keys.add(await connection.fetchval("SELECT key_id_tag_key FROM deployment"))
        await connection.close()
    assert len(keys) == 2
    assert {len(key) for key in keys} == {32}
