"""Brings a database's schema up to date: numbered files of plain SQL, each applied once, in order, in a transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from latchgate_server.storage.failures import told_plainly
from latchgate_server.storage.pool import MINIMUM_VERSION, Connection

# Any number that nobody else takes as an advisory lock in this database.
_LOCK = 0x6C61_7463_6867_6174

# Building an index may take longer than a lease.
_UNHURRIED = {"statement_timeout": "0", "lock_timeout": "0", "idle_in_transaction_session_timeout": "0"}

_LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    digest text NOT NULL,
    apply_time timestamptz NOT NULL DEFAULT now()
)
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
                async with connection.transaction():
                    await connection.execute(migration.sql)
                    await connection.execute(
                        "INSERT INTO schema_migrations (version, name, digest) VALUES ($1, $2, $3)",
                        migration.version,
                        migration.name,
                        migration.digest,
                    )
            return Migrated(missing, await _set_default_timeout(connection, lease))
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
    """Why the schema is not what this version needs; empty where it is."""
    exists = await connection.fetchval("SELECT to_regclass('schema_migrations') IS NOT NULL")
    try:
        missing = _missing(await _applied(connection) if exists else {})
    except SchemaProblem as problem:
        return str(problem)
    return "the database's schema is not current; run: latchgate migrate" if missing else ""


async def _applied(connection: Connection) -> dict[int, str]:
    rows = await connection.fetch("SELECT version, digest FROM schema_migrations")
    return {row["version"]: row["digest"] for row in rows}


def _missing(applied: dict[int, str]) -> Sequence[Migration]:
    known = {migration.version: migration for migration in migrations()}
    if unknown := sorted(applied.keys() - known.keys()):
        raise SchemaProblem(
            f"the schema has migration {unknown[-1]}, which this version does not know; upgrade Latchgate"
        )
    for version, digest in applied.items():
        if known[version].digest != digest:
            raise SchemaProblem(f"migration {version} was applied from another file than this version has")
    return [migration for version, migration in known.items() if version not in applied]
