"""Reads: implements ports.Reader on a pool or on one connection."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg

from latchgate_server.core.model import Key, Plan, Role, Tenant
from latchgate_server.core.ports import (
    AuditEvent,
    AuditFilter,
    EarlierCall,
    FormsRead,
    KeyFilter,
    ListPosition,
    Loaded,
    Restrictions,
)
from latchgate_server.storage import lists, rows
from latchgate_server.storage.failures import told_plainly
from latchgate_server.storage.pool import Connection
from latchgate_server.storage.queries import SQL

_STRETCH = 8
"""How many records are made in one go: half a millisecond's worth."""


class PostgresReader:
    """Runs each read on `executor`: a pool for reads of their own, a connection for those within a transaction."""

    def __init__(self, executor: asyncpg.Pool | Connection, patience: float) -> None:
        """patience: seconds for a read, the wait for a free connection included."""
        self._executor = executor
        self._patience = patience

    async def get_tenant(self, tenant_id: str) -> Tenant | None:
        row = await self._row("get_tenant", tenant_id)
        return rows.tenant_from(row) if row else None

    async def list_tenants(self, after: str, only: str | None, limit: int) -> Sequence[Tenant]:
        if only is not None:
            tenant = await self.get_tenant(only) if only > after else None
            return [tenant] if tenant else []
        return [rows.tenant_from(row) for row in await self._rows("list_tenants", after, limit)]

    async def get_plan(self, plan_id: str) -> Plan | None:
        row = await self._row("get_plan", plan_id)
        return rows.plan_from(row) if row else None

    async def tenant_on_plan(self, plan_id: str) -> str | None:
        row = await self._row("tenant_on_plan", plan_id)
        return row["tenant_id"] if row else None

    async def list_plans(self, after: str, of_tenant: str | None, limit: int) -> Sequence[Plan]:
        if of_tenant is not None:
            row = await self._row("plan_of_tenant", of_tenant)
            return [rows.plan_from(row)] if row and row["plan_id"] > after else []
        return [rows.plan_from(row) for row in await self._rows("list_plans", after, limit)]

    async def find_roles(self, tenant_id: str, role_ids: Sequence[str]) -> Mapping[str, Role]:
        found = await self._rows("find_roles", tenant_id, list(role_ids))
        return {row["role_id"]: rows.role_from(row) for row in found}

    async def key_with_role(self, role: Role) -> str | None:
        row = await self._row("key_with_role", role.role_id, role.tenant_id)
        return row["key_id"] if row else None

    async def restrictions_of_holders(self, role: Role, limit: int) -> Sequence[Restrictions]:
        found = await self._rows("restrictions_of_holders", role.role_id, role.tenant_id, limit)
        return [
            Restrictions(
                resources=tuple(row["resources"]),
                ip_allowlist_enabled=row["ip_allowlist_enabled"],
                ip_allowlist=tuple(row["ip_allowlist"]),
                expire_time=row["expire_time"],
            )
            for row in found
        ]

    async def list_roles(self, tenant_id: str, after: str, limit: int) -> Sequence[Role]:
        return [rows.role_from(row) for row in await self._rows("list_roles", tenant_id, after, limit)]

    async def role_id_taken(self, tenant_id: str, role_id: str) -> bool:
        return bool((await self._one("role_id_taken", tenant_id, role_id))["taken"])

    async def get_key(self, key_id: str) -> Key | None:
        row = await self._row("get_key", key_id)
        return rows.key_from(row) if row else None

    async def get_keys(self, key_ids: Sequence[str]) -> Mapping[str, Key]:
        return {row["key_id"]: rows.key_from(row) for row in await self._rows("get_keys", list(key_ids))}

    async def taken_key_ids(self, key_ids: Sequence[str]) -> frozenset[str]:
        return frozenset(row["key_id"] for row in await self._rows("taken_key_ids", list(key_ids)))

    async def taken_forms(self, forms: Sequence[str]) -> frozenset[str]:
        return frozenset(row["form"] for row in await self._rows("taken_forms", list(forms)))

    async def list_keys(
        self, matching: KeyFilter, before: ListPosition | None, limit: int
    ) -> Sequence[tuple[ListPosition, Key]]:
        found = await self._planned(lists.list_keys(matching, before, limit))
        return [(ListPosition(row["number"], row["page_time"]), rows.key_from(row)) for row in found]

    async def count_keys(self, matching: KeyFilter) -> int:
        (row,) = await self._planned(lists.count_keys(matching))
        return int(row["keys"])

    async def administrators(self, tenant_id: str, grants: Sequence[str], limit: int) -> Sequence[str]:
        return [row["key_id"] for row in await self._rows("administrators", tenant_id, list(grants), limit)]

    async def count_live_keys(self, tenant_id: str) -> int:
        return int((await self._one("count_live_keys", tenant_id))["keys"])

    async def find_request(self, actor: str, request_id: UUID) -> EarlierCall | None:
        row = await self._row("find_request", actor, request_id)
        return EarlierCall(row["key_id"], row["call"]) if row else None

    async def list_audit_events(
        self, matching: AuditFilter, before: ListPosition | None, limit: int
    ) -> Sequence[AuditEvent]:
        return [AuditEvent(**row) for row in await self._planned(lists.list_audit_events(matching, before, limit))]

    async def audit_events_after(self, sequence: int, limit: int) -> Sequence[AuditEvent]:
        return [AuditEvent(**row) for row in await self._rows("audit_events_after", sequence, limit)]

    async def load_records(self, key_ids: Sequence[str]) -> Mapping[str, Loaded]:
        found = await self._rows("load_records", list(key_ids))
        loaded: dict[str, Loaded] = {}
        for row in found:
            loaded[row["id"]] = rows.loaded_from(row)
            if len(loaded) % _STRETCH == 0:
                await asyncio.sleep(0)  # verifications want their turn
        return loaded

    async def read_forms(self, after: tuple[int, str], limit: int) -> FormsRead:
        found = await self._rows("read_forms", *after, limit)
        forms = [(row["revision"], row["form"]) for row in found if row["form"] is not None]
        return FormsRead(found[0]["snapshot_revision"], forms)

    async def _rows(self, statement: str, *arguments: object) -> list[Any]:
        with told_plainly():
            async with asyncio.timeout(self._patience):
                return list(await self._executor.fetch(SQL[statement], *arguments))

    async def _planned(self, statement: lists.Statement) -> list[Any]:
        """The rows of a list, planned anew for its arguments: which index serves depends on how many rows match."""
        with told_plainly():
            async with asyncio.timeout(self._patience):
                if isinstance(self._executor, asyncpg.Pool):
                    async with self._executor.acquire() as connection:
                        return await _planned_on(connection, statement)
                # Within a mutation: its transaction is there already, and the setting ends with it.
                return await _planned(self._executor, statement)

    async def _row(self, statement: str, *arguments: object) -> Any:
        with told_plainly():
            async with asyncio.timeout(self._patience):
                return await self._executor.fetchrow(SQL[statement], *arguments)

    async def _one(self, statement: str, *arguments: object) -> Any:
        row = await self._row(statement, *arguments)
        assert row is not None, f"{statement} always returns a row"
        return row


async def _planned_on(connection: Connection, statement: lists.Statement) -> list[Any]:
    async with connection.transaction():
        return await _planned(connection, statement)


async def _planned(connection: Connection, statement: lists.Statement) -> list[Any]:
    await connection.execute(SQL["plan_for_arguments"])
    return list(await connection.fetch(statement.text, *statement.arguments))
