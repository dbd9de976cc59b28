"""Keys in the database by the thousand, faster than AdminService can make them: copies of one that it made."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence

import asyncpg

from latchgate_server.core.model import HashProfile
from latchgate_server.hashing import NewCredential, Peppers, SecretHasher
from latchgate_server.system import SystemEntropy
from tests.support.server import PEPPER

_AT_ONCE = 500
_STATEMENT_SECONDS = 600.0
_STRETCH = 100_000
# Two thirds of the time would go into the words that lists search for, and a tenth into foreign keys, which hold.
_WITHOUT_LISTS = """
SET LOCAL session_replication_role TO replica;
ALTER TABLE keys DISABLE TRIGGER latchgate_list_new;
"""
_WITH_LISTS = "ALTER TABLE keys ENABLE ALWAYS TRIGGER latchgate_list_new"


async def _columns(connection: asyncpg.Connection, table: str) -> list[str]:
    rows = await connection.fetch(
        "SELECT column_name FROM information_schema.columns WHERE table_name = $1 AND table_schema = current_schema()"
        " AND is_identity = 'NO' AND is_generated = 'NEVER' ORDER BY ordinal_position",
        table,
    )
    return [row["column_name"] for row in rows]


async def _copy_key(connection: asyncpg.Connection, template: str, key_ids: str, *arguments: object) -> None:
    """Copy a key and its roles. key_ids: SQL for a set of rows with the column key_id; arguments: from $2 on."""
    for table in ("keys", "key_roles"):
        columns = await _columns(connection, table)
        values = ["made.key_id" if name in ("key_id", "lineage_id") else f"old.{name}" for name in columns]
        await connection.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(values)}"  # noqa: S608 - names of our own columns
            f" FROM {table} AS old, {key_ids} AS made (key_id) WHERE old.key_id = $1",
            template,
            *arguments,
            timeout=_STATEMENT_SECONDS,
        )


async def _hasher(connection: asyncpg.Connection) -> SecretHasher:
    tag_key = await connection.fetchval("SELECT key_id_tag_key FROM deployment")
    return SecretHasher(Peppers([base64.b64decode(PEPPER)]), tag_key, SystemEntropy())


async def copy_key(database_url: str, template: str, count: int) -> Sequence[NewCredential]:
    """Make `count` keys like the one with the key id `template`, each with a secret of its own; they verify."""
    connection = await asyncpg.connect(database_url)
    try:
        hasher = await _hasher(connection)
        credentials = [hasher.make_credential("lg") for _ in range(count)]
        sealed = []
        for start in range(0, count, _AT_ONCE):
            some = credentials[start : start + _AT_ONCE]
            sealed += await asyncio.gather(*(hasher.seal(c.key_id, c.secret, HashProfile.GENERATED) for c in some))
        hasher.close()
        async with connection.transaction():
            await connection.execute("SELECT latchgate_begin_change()")
            await _copy_key(connection, template, "unnest($2::text[])", [c.key_id for c in credentials])
            await connection.executemany(
                "INSERT INTO key_secrets (key_id, profile, pepper_id, phc, tag) VALUES ($1, 'generated', $2, $3, $4)",
                [(c.key_id, s.pepper_id, s.phc, s.tag) for c, s in zip(credentials, sealed, strict=True)],
            )
        return credentials
    finally:
        await connection.close()


async def copy_key_without_secret(
    database_url: str, template: str, count: int, told: Callable[[str], None]
) -> Sequence[str]:
    """Make `count` keys like that one; none verifies, but all can be loaded, and no list is to find them.

    told: is given a line before each stretch. Gives their key ids.
    """
    connection = await asyncpg.connect(database_url)
    try:
        hasher = await _hasher(connection)
        key_ids = [hasher.make_credential("lg").key_id for _ in range(count)]
        hasher.close()
        for start in range(0, count, _STRETCH):
            some = key_ids[start : start + _STRETCH]
            told(f"keys {start + 1:,} to {start + len(some):,} of {count:,}")
            async with connection.transaction():
                await connection.execute(_WITHOUT_LISTS)
                await connection.execute("SELECT latchgate_begin_change()")
                await _copy_key(connection, template, "unnest($2::text[])", some)
                await connection.execute(
                    "INSERT INTO key_secrets (key_id, profile, pepper_id, phc, tag)"
                    " SELECT made.key_id, profile, pepper_id, phc, tag"
                    " FROM key_secrets AS old, unnest($2::text[]) AS made (key_id) WHERE old.key_id = $1",
                    template,
                    some,
                    timeout=_STATEMENT_SECONDS,
                )
                await connection.execute(_WITH_LISTS)
        await connection.execute("ANALYZE", timeout=_STATEMENT_SECONDS)
        return key_ids
    finally:
        await connection.close()
