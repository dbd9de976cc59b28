"""SQL typed by hand: a session in which a test says what somebody at a prompt would, and what it did to the feed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg

_EMPTY = {
    "text": "",
    "ARRAY": [],
    "jsonb": "{}",
    "boolean": False,
    "bigint": 0,
    "integer": 0,
    "smallint": 0,
    "bytea": b"",
    "timestamp with time zone": None,
}
_numbers = itertools.count(1)

_WAITING = """
    SELECT EXISTS (
        SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
    )
"""

T = TypeVar("T")

Change = tuple[int, str, str]
"""Revision, entity and id of a row of `changes`."""


def fresh_id() -> str:
    """An id that no other test has."""
    return f"id-{next(_numbers)}"


class Prompt:
    """One session."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection

    async def run(self, statement: str, *arguments: object) -> str:
        """Run a statement and return what psql would print for it, for example `UPDATE 3`."""
        return str(await self.connection.execute(statement, *arguments))

    async def value(self, query: str, *arguments: object) -> Any:
        """The one value that a query gives."""
        return await self.connection.fetchval(query, *arguments)

    async def revision(self) -> int:
        """The revision that this session sees."""
        return int(await self.value("SELECT revision FROM revision_clock"))

    async def changes(self, after: int) -> list[Change]:
        """What the feed was told after a revision, in order."""
        rows = await self.connection.fetch(
            "SELECT revision, entity, id FROM changes WHERE revision > $1 ORDER BY revision, entity, id", after
        )
        return [(row["revision"], row["entity"], row["id"]) for row in rows]

    async def insert(self, table: str, **values: object) -> None:
        """Insert a row; columns that need a value and are not given one are empty."""
        columns = await self.connection.fetch(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'public'"
            " AND table_name = $1 AND is_nullable = 'NO' AND column_default IS NULL AND is_identity = 'NO'",
            table,
        )
        row = {column["column_name"]: _EMPTY[column["data_type"]] for column in columns} | values
        names, places = ", ".join(row), ", ".join(f"${place}" for place in range(1, len(row) + 1))
        await self.run(f"INSERT INTO {table} ({names}) VALUES ({places})", *row.values())

    # Rows of the decision tables; each method returns the id.

    async def tenant(self, **values: object) -> str:
        """A tenant."""
        tenant_id = fresh_id()
        await self.insert("tenants", tenant_id=tenant_id, **({"limits": "[]"} | values))
        return tenant_id

    async def plan(self) -> str:
        """A plan."""
        plan_id = fresh_id()
        await self.insert("plans", plan_id=plan_id, key_limits="[]", tenant_limits="[]")
        return plan_id

    async def key(self, tenant_id: str, **values: object) -> str:
        """A key with its secret, in one transaction."""
        key_id = fresh_id()
        async with self.connection.transaction():
            given = {"limits": "[]", "state": "ACTIVE"} | values
            await self.insert("keys", key_id=key_id, tenant_id=tenant_id, **given)
            await self.insert("key_secrets", key_id=key_id, profile="generated")
        return key_id

    async def role(self, tenant_id: str | None = None) -> int:
        """A role; its number."""
        role_id = fresh_id()
        await self.insert("roles", role_id=role_id, tenant_id=tenant_id)
        return int(await self.value("SELECT number FROM roles WHERE role_id = $1", role_id))

    async def give(self, key_id: str, number: int) -> None:
        """Give a key a role."""
        await self.insert("key_roles", key_id=key_id, role_number=number)


@asynccontextmanager
async def parked(prompt: Prompt, waiting: Awaitable[T]) -> AsyncIterator[asyncio.Future[T]]:
    """A statement of another session that waits for a lock; `prompt` only looks."""
    future = asyncio.ensure_future(waiting)
    while not await prompt.value(_WAITING):
        assert not future.done()
        await asyncio.sleep(0.005)
    yield future
    await asyncio.wait([future])
