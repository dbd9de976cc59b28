"""This version serves on while the schema of the next one is made beneath it, and knows which it cannot run with.

The next version's migration is one of the test's own, with every kind of statement that such a migration may have. What
the version before this one does on the schema of today is in test_old_and_new.py.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter

import asyncpg
import pytest

from latchgate.v1 import admin_service_pb2 as pb
from latchgate_server.storage import migrate as migrations_module
from latchgate_server.storage.migrate import Migration, migrate, migrations
from tests.conformance.house import House
from tests.support.server import Admin, ServerProcess, Verify, environment, make_root_key, run_command

LEASE = 3.0
NEWEST = len(migrations())

ADDING = f"""-- compatible-from: {NEWEST}
CREATE TABLE of_the_next (id bigint PRIMARY KEY, note text NOT NULL);
ALTER TABLE tenants ADD COLUMN of_the_next text;
ALTER TABLE plans ADD COLUMN of_the_next jsonb NOT NULL DEFAULT '{{}}';
ALTER TABLE roles ADD COLUMN of_the_next boolean NOT NULL DEFAULT false;
ALTER TABLE keys ADD COLUMN of_the_next text;
CREATE INDEX keys_of_the_next ON keys (of_the_next) WHERE of_the_next IS NOT NULL;
"""


@pytest.fixture
def next_version(monkeypatch: pytest.MonkeyPatch) -> list[Migration]:
    """What this process, unlike those that it starts, takes for the migrations of its version."""
    known = list(migrations())
    monkeypatch.setattr(migrations_module, "migrations", lambda: known)
    return known


def test_a_version_serves_on_and_starts_again_on_a_schema_that_only_grew(
    database_url: str, next_version: list[Migration]
) -> None:
    root_key = make_root_key(database_url)
    next_version.append(Migration(NEWEST + 1, "adding", ADDING))
    with ServerProcess(database_url) as old:
        root, verify = Admin(old.admin_address, root_key), Verify(old.verify_address)
        house = House(root)
        cold = [house.key().key_string for _ in range(200)]
        ends: Counter[int] = Counter()
        done = threading.Event()

        def verify_cold_keys() -> None:
            # Each is read from the database, past whatever the migration holds.
            for key in cold:
                ends[verify(key).decision] += 1
                done.wait(0.005)

        verifying = threading.Thread(target=verify_cold_keys)
        verifying.start()
        asyncio.run(migrate(database_url, LEASE))
        verifying.join()
        assert ends == {1: len(cold)}

        # What it writes has no value for the columns that came.
        revoked = house.key()
        assert verify(revoked.key_string).decision == 1
        root.RevokeKey(pb.RevokeKeyRequest(key_id=revoked.key.key_id, reason="test"))
        assert verify(revoked.key_string).decision == 2
        root.close()
        verify.close()
        assert old.stop() == 0
        old.start()

    checked = run_command("migrate", "--check", env=environment(database_url))
    assert (checked.returncode, checked.stdout) == (0, "the schema is current\n")


def test_a_version_refuses_to_start_on_a_schema_that_it_cannot_run_with(
    database_url: str, next_version: list[Migration]
) -> None:
    next_version.append(Migration(NEWEST + 1, "adding", ADDING))
    next_version.append(Migration(NEWEST + 2, "removing", "ALTER TABLE keys DROP COLUMN of_the_next;"))
    asyncio.run(migrate(database_url, LEASE))

    for command in (["serve"], ["migrate"], ["migrate", "--check"]):
        done = run_command(*command, env=environment(database_url))
        assert done.returncode == 1
        assert f"migration {NEWEST + 2}, which this version does not know and cannot run with" in done.stderr


def test_a_migration_that_waits_for_a_lock_holds_up_nobody_else(
    database_url: str, next_version: list[Migration]
) -> None:
    next_version.append(Migration(NEWEST + 1, "adding", ADDING))

    async def migrate_beside_a_long_read() -> None:
        reader, other = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
        # PostgreSQL itself measures the wait: what this process and its machine are busy with does not count.
        await other.execute(f"SET lock_timeout = {int(LEASE * 0.5 * 1_000)}")  # as our own sessions wait for a lock
        reading = reader.transaction()
        await reading.start()
        await reader.execute("SELECT 1 FROM keys")
        migrating = asyncio.create_task(migrate(database_url, LEASE))
        longest, start = 0.0, time.monotonic()
        while time.monotonic() < start + 2.5 or longest < LEASE * 0.1:
            assert time.monotonic() < start + 20, "the migration never waited for its lock"
            began = time.monotonic()
            await other.execute("SELECT 1 FROM keys")
            longest = max(longest, time.monotonic() - began)
            await asyncio.sleep(0.01)
        assert not migrating.done()
        await reading.rollback()
        assert [migration.version for migration in (await migrating).applied] == [NEWEST + 1]
        await reader.close()
        await other.close()

    asyncio.run(migrate_beside_a_long_read())


def test_what_is_missing_is_told_and_is_the_exit_code(database_url: str) -> None:
    asyncio.run(_forget(database_url))
    before = run_command("migrate", "--check", env=environment(database_url))
    name = migrations()[-1].name
    assert (before.returncode, before.stdout) == (1, f"missing {NEWEST:04} {name}\n")


async def _forget(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("DELETE FROM schema_migrations WHERE version = $1", NEWEST)
    await connection.close()
