"""The statements of a released version do on the schema of this one what they did on their own.

Replicas are upgraded one by one, so the version before meets the new schema. Its statements are kept in released.sql.
Each is run with made-up arguments in a small deployment, first on the schema that its version knows and then on the
newest: it returns the same columns, and as many rows.

After a release, in its commit: `python -m tests.storage.released`. Where a statement has got other parameters by then,
ARGUMENTS changes with it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from latchgate_server.storage import migrate as migrations_module
from latchgate_server.storage.migrate import migrate, migrations
from tests.storage import released
from tests.support.postgres import Postgres

LEASE = 3.0
RELEASED = released.read()
NOW = datetime.now(UTC)
HOUR = int(NOW.timestamp()) // 3_600

# What a parameter of a type gets: what everything in the deployment is called, or a small number.
SAMPLES: Mapping[str, Any] = {
    "text": "acme",
    "bool": True,
    "int2": 1,
    "int4": 1,
    "int8": 1,
    "float8": NOW.timestamp(),
    "bytea": bytes(32),
    "jsonb": "{}",
    "timestamptz": NOW,
    "uuid": UUID(int=1),
}

NEW_KEY: Mapping[str, object] = {
    "key_id": "another",
    "tenant_id": "acme",
    "state": "ACTIVE",
    **dict.fromkeys(("display_name", "description", "owner", "default_user", "environment", "created_by"), ""),
    **dict.fromkeys(("revocation_reason", "predecessor_key_id", "successor_key_id", "lineage_id"), ""),
    **{column: [] for column in ("permissions", "ip_allowlist", "resources")},
    **{column: {} for column in ("claims", "tags", "limits")},
    **dict.fromkeys(("expired", "ip_allowlist_enabled"), False),
}

# A deployment: what is run first, in this order. By their numbers, parameters that get something else than a sample.
DEPLOYMENT: Sequence[tuple[str, Mapping[int, Any]]] = (
    ("insert_plan", {}),
    ("insert_plan", {1: "bare"}),
    ("insert_tenant", {}),
    ("insert_role", {}),
    ("insert_role", {1: "bare"}),
    ("insert_key", {18: "ACTIVE"}),
    ("insert_key", {1: "bare", 18: "ACTIVE"}),
    ("insert_secret", {2: "generated"}),
    ("insert_key_roles", {}),
    ("insert_imported_forms", {}),
    ("insert_request", {}),
    ("insert_audit_event", {}),
    ("beat", {}),
    ("make_usage_partitions", {}),
    ("add_key_usage", {2: [HOUR]}),
    ("add_tenant_usage", {2: [HOUR]}),
    ("renew_last_uses", {}),
    ("add_key_sources", {}),
    ("add_key_uses", {}),
)

# What then does something.
ARGUMENTS: Mapping[str, Mapping[int, Any]] = {
    "take_back_quotas": {2: ["2026-01-01"]},
    "set_limit": {1: "KEY"},
    "insert_tenant": {1: "another"},
    "insert_plan": {1: "another"},
    "insert_role": {1: "another"},
    "insert_key": {1: "another", 18: "ACTIVE"},
    "insert_secret": {1: "bare", 2: "generated"},
    "insert_secrets": {1: ["bare"], 2: ["imported"]},
    "insert_imported_forms": {1: ["another"], 2: ["bare"]},
    "insert_key_roles": {1: "bare"},
    "insert_roles_of_keys": {1: ["bare"]},
    "insert_request": {2: UUID(int=2)},
    "insert_audit_event": {1: 2},
    "list_tenants": {1: ""},
    "list_plans": {1: ""},
    "list_roles": {2: ""},
    "delete_plan": {1: "bare"},
    "delete_role": {1: "bare"},
    "insert_keys": {1: json.dumps([NEW_KEY])},
    "update_key": {17: "ACTIVE"},
    "replace_secret": {6: "generated"},
    "add_key_usage": {2: [HOUR]},
    "add_tenant_usage": {2: [HOUR]},
    "read_key_usage": {2: NOW - timedelta(days=1), 3: NOW + timedelta(days=1), 4: "hour"},
    "read_tenant_usage": {2: NOW - timedelta(days=1), 3: NOW + timedelta(days=1), 4: "hour"},
    "audit_events_after": {1: 0},
}


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a statement does. outcome: how many rows it returns or touches; or, where it is refused, why."""

    columns: Sequence[tuple[str, str]] = ()
    outcome: str = ""
    refusal: str = ""


class RolledBack(Exception):
    pass


async def run(connection: asyncpg.Connection, name: str, own: Mapping[int, Any]) -> Behaviour:
    prepared = await connection.prepare(RELEASED.statements[name])
    arguments = []
    for number, parameter in enumerate(prepared.get_parameters(), 1):
        of_one = parameter.name.removesuffix("[]")
        sample = SAMPLES[of_one] if of_one == parameter.name else [SAMPLES[of_one]]
        arguments.append(own.get(number, sample))
    await prepared.fetch(*arguments)
    columns = [(attribute.name, attribute.type.name) for attribute in prepared.get_attributes()]
    return Behaviour(columns, str(prepared.get_statusmsg()))


async def attempt(connection: asyncpg.Connection, name: str) -> Behaviour:
    """What it does, undone again."""
    did = Behaviour()
    try:
        async with connection.transaction():
            did = await run(connection, name, ARGUMENTS.get(name, {}))
            raise RolledBack
    except RolledBack:
        return did
    except asyncpg.PostgresError as error:
        return Behaviour(refusal=str(error))


async def behaviours(url: str, migration: str = "") -> Mapping[str, Behaviour]:
    """What each statement does in a deployment that its version made. migration: what happens to the schema before."""
    did: dict[str, Behaviour] = {}
    connection: asyncpg.Connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await run(connection, "begin_change", {})
            for name, own in DEPLOYMENT:
                await run(connection, name, own)
            if migration:
                await connection.execute(migration)
            for name in RELEASED.statements:
                did[name] = await attempt(connection, name)
            raise RolledBack
    except RolledBack:
        return did
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> str:
    """A database with nothing in it, at first."""
    return postgres.new_database(migrated=False)


@pytest.fixture(scope="module")
def before(database: str) -> Mapping[str, Behaviour]:
    """On the schema that the released version knows."""
    with pytest.MonkeyPatch.context() as patch:
        known_then = migrations()[: RELEASED.level]
        patch.setattr(migrations_module, "migrations", lambda: known_then)
        asyncio.run(migrate(database, LEASE))
    return asyncio.run(behaviours(database))


@pytest.fixture(scope="module")
def newest(database: str, before: Mapping[str, Behaviour]) -> str:
    """The database, after this version's migrations."""
    assert before
    asyncio.run(migrate(database, LEASE))
    return database


def test_every_statement_is_run_to_some_effect_on_its_own_schema(before: Mapping[str, Behaviour]) -> None:
    assert {name: did.refusal for name, did in before.items() if did.refusal} == {}


def test_the_released_version_starts_on_the_newest_schema() -> None:
    """Else it is none that is upgraded from without a break; then released.sql is to be written anew."""
    assert all(migration.compatible_from <= RELEASED.level for migration in migrations()[RELEASED.level :])


def test_the_statements_of_the_released_version_do_the_same_on_the_newest_schema(
    before: Mapping[str, Behaviour], newest: str
) -> None:
    assert asyncio.run(behaviours(newest)) == before


@pytest.mark.parametrize(
    ("migration", "found"),
    [
        pytest.param("ALTER TABLE keys DROP COLUMN owner CASCADE", "get_key", id="a column is dropped"),
        pytest.param("ALTER TABLE key_uses RENAME path TO place", "add_key_uses", id="a column is renamed"),
        pytest.param("ALTER TABLE plans ALTER max_keys TYPE bigint", "get_plan", id="a column has another type"),
        pytest.param("ALTER TABLE limit_resets ADD n text NOT NULL", "set_limit", id="a column must be given"),
        pytest.param("ALTER FUNCTION latchgate_timeline RENAME TO t", "read_replicas", id="a function is renamed"),
        pytest.param(
            "ALTER TABLE replicas RENAME applied_revision TO applied",
            "acknowledge",
            id="a function reads what is not there",
        ),
    ],
)
def test_a_migration_that_the_released_version_cannot_run_after_is_found(
    before: Mapping[str, Behaviour], newest: str, migration: str, found: str
) -> None:
    after = asyncio.run(behaviours(newest, migration))
    assert after[found] != before[found]
