"""Brings a database's schema up to date: numbered files of plain SQL, each applied once, in order, in a transaction.

A file that only adds to the schema says in its first line which code may go on running on it, by the number of the
newest migration that this code knows: `-- compatible-from: 3`. Without such a line only code that knows the file itself
runs after it. So replicas are upgraded one by one: first the schema, then the processes.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from latchgate_server.storage.failures import told_plainly
from latchgate_server.storage.pool import MINIMUM_VERSION, Connection

# Any number that nobody else takes as an advisory lock in this database.
_LOCK = 0x6C61_7463_6867_6174

# Whoever waits for a lock on a table holds up all who come after, those who verify among them. So a migration gives up
# early and tries again.
_LOCK_PART, _ATTEMPTS = 0.25, 40

_COMPATIBLE = re.compile(r"-- compatible-from: (\d+)\n")

# Building an index may take longer than a lease.
_UNHURRIED = {"statement_timeout": "0", "lock_timeout": "0", "idle_in_transaction_session_timeout": "0"}

_LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    digest text NOT NULL,
    apply_time timestamptz NOT NULL DEFAULT now(),
    compatible_from integer
);
ALTER TABLE schema_migrations ADD COLUMN IF NOT EXISTS compatible_from integer;
"""


class SchemaProblem(Exception):
    """The schema is not what this version needs; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file `NNNN_name.sql`; the digest tells whether it was edited after it was applied."""

    version: int
    name: str
    sql: str

    @property
    def digest(self) -> str:
        """SHA-256 of the file, in hexadecimal."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def compatible_from(self) -> int:
        """Code that knows the migrations up to this one runs on the schema after it."""
        declared = _COMPATIBLE.match(self.sql)
        return int(declared[1]) if declared else self.version


@dataclass(frozen=True, slots=True)
class Migrated:
    """What `migrate` did.

    applied: the migrations that were missing. timeout_set: whether the database now ends sessions that sit idle in a
    transaction; only its owner may have it so.
    """

    applied: Sequence[Migration]
    timeout_set: bool


def migrations() -> Sequence[Migration]:
    """All migrations of this version, in order."""
    files = [f for f in resources.files(__package__).joinpath("migrations").iterdir() if f.name.endswith(".sql")]
    return [
        Migration(int(file.name[:4]), file.name[5:].removesuffix(".sql"), file.read_text(encoding="utf-8"))
        for file in sorted(files, key=lambda file: file.name)
    ]


async def migrate(url: str, lease: float) -> Migrated:
    """Apply what is missing. Safe to run from several places at once.

    It also gives the database a default for how long a session may sit idle in a transaction, below the lease
    (seconds): a forgotten psql must not hold the revision clock for longer than mutations wait.
    Raises SchemaProblem where the database is too old, newer than this version, or was migrated by an edited file.
    """
    with told_plainly():
        connection = await asyncpg.connect(
            url, target_session_attrs=SessionAttribute.read_write, server_settings=_UNHURRIED
        )
        try:
            if connection.get_server_version().major < MINIMUM_VERSION:
                raise SchemaProblem(f"PostgreSQL {MINIMUM_VERSION} or newer is needed")
            await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
            await connection.execute(_LEDGER)
            missing = _missing(await _applied(connection))
            for migration in missing:
                await _apply(connection, migration, lease)
            return Migrated(missing, await _set_default_timeout(connection, lease))
        finally:
            await connection.close()


async def _apply(connection: asyncpg.Connection, migration: Migration, lease: float) -> None:
    for _ in range(_ATTEMPTS):
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = {int(lease * _LOCK_PART * 1_000)}")
                await connection.execute(migration.sql)
                await connection.execute(
                    "INSERT INTO schema_migrations (version, name, digest, compatible_from) VALUES ($1, $2, $3, $4)",
                    migration.version,
                    migration.name,
                    migration.digest,
                    migration.compatible_from,
                )
            return
        except asyncpg.LockNotAvailableError:
            await asyncio.sleep(lease * _LOCK_PART)
    raise SchemaProblem(
        f"migration {migration.version} does not get its locks: somebody keeps a table busy; see pg_stat_activity for "
        "long transactions, and run `latchgate migrate` again"
    )


async def pending(url: str) -> Sequence[Migration]:
    """The migrations that are missing, in order. Changes nothing.

    Raises SchemaProblem where `migrate` would refuse, whatever is missing.
    """
    with told_plainly():
        connection = await asyncpg.connect(url, server_settings={"default_transaction_read_only": "on"})
        try:
            return await _pending(connection)
        finally:
            await connection.close()


async def _set_default_timeout(connection: asyncpg.Connection, lease: float) -> bool:
    name = await connection.fetchval("SELECT quote_ident(current_database())")
    try:
        await connection.execute(f"ALTER DATABASE {name} SET idle_in_transaction_session_timeout = {int(lease * 800)}")
    except asyncpg.InsufficientPrivilegeError:
        return False
    return True


async def check_schema(pool: asyncpg.Pool) -> None:
    """Raise SchemaProblem unless the schema is current."""
    with told_plainly():
        async with pool.acquire() as connection:
            problem = await schema_problem(connection)
    if problem:
        raise SchemaProblem(problem)


async def schema_problem(connection: Connection) -> str:
    """Why this version cannot run on the schema; empty where it can: where it is current, or newer and compatible."""
    try:
        missing = await _pending(connection)
    except SchemaProblem as problem:
        return str(problem)
    return "the database's schema is not current; run: latchgate migrate" if missing else ""


async def _pending(connection: Connection) -> Sequence[Migration]:
    exists = await connection.fetchval("SELECT to_regclass('schema_migrations') IS NOT NULL")
    return _missing(await _applied(connection) if exists else [])


@dataclass(frozen=True, slots=True)
class _Applied:
    version: int
    digest: str
    compatible_from: int


async def _applied(connection: Connection) -> Sequence[_Applied]:
    # By way of jsonb, since a ledger of an early version lacks the column.
    rows = await connection.fetch(
        "SELECT version, digest, coalesce((to_jsonb(m) ->> 'compatible_from')::integer, version) AS compatible_from"
        " FROM schema_migrations AS m"
    )
    return [_Applied(row["version"], row["digest"], row["compatible_from"]) for row in rows]


def _missing(applied: Sequence[_Applied]) -> Sequence[Migration]:
    known = {migration.version: migration for migration in migrations()}
    newest = max(known)
    for each in applied:
        if each.compatible_from > newest:
            raise SchemaProblem(
                f"the schema has migration {each.version}, which this version does not know and cannot run with; "
                "upgrade Latchgate"
            )
        if each.version in known and known[each.version].digest != each.digest:
            raise SchemaProblem(f"migration {each.version} was applied from another file than this version has")
    done = {each.version for each in applied}
    return [migration for version, migration in known.items() if version not in done]
