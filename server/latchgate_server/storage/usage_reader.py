"""Reads of usage: implements usage.UsageReader on a pool."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg

from latchgate_server.core import bounds
from latchgate_server.core.model import DenialReason
from latchgate_server.core.usage import BusyKey, KeySource, KeyUse, Traffic, UsageCount
from latchgate_server.storage.failures import told_plainly
from latchgate_server.storage.queries import SQL


class PostgresUsageReader:
    """Runs each read on the pool."""

    def __init__(self, pool: asyncpg.Pool, patience: float) -> None:
        """patience: seconds for a read, the wait for a free connection included."""
        self._pool = pool
        self._patience = patience

    async def key_usage(self, key_id: str, start: datetime, end: datetime, by: str) -> Sequence[UsageCount]:
        found = await self._rows("read_key_usage", key_id, start, end, by)
        return [UsageCount(row["start"], row["outcome"], row["count"]) for row in found]

    async def tenant_usage(self, tenant_id: str, start: datetime, end: datetime, by: str) -> Sequence[UsageCount]:
        found = await self._rows("read_tenant_usage", tenant_id, start, end, by)
        return [UsageCount(row["start"], row["outcome"], row["count"]) for row in found]

    async def key_uses(self, key_id: str) -> Sequence[KeyUse]:
        found = await self._rows("read_key_uses", key_id, bounds.USES_PER_KEY)
        return [
            KeyUse(
                time=row["time"],
                denial_reason=DenialReason(row["outcome"]) if row["outcome"] else None,
                client_ip=row["client_ip"],
                user=row["user_name"],
                method=row["method"],
                host=row["host"],
                path=row["path"],
                user_agent=row["user_agent"],
            )
            for row in found
        ]

    async def key_sources(self, key_id: str, after: tuple[datetime, str] | None, limit: int) -> Sequence[KeySource]:
        found = await self._rows("read_key_sources", key_id, *(after or (None, None)), limit, bounds.SOURCES_PER_KEY)
        return [
            KeySource(
                client_ip=row["client_ip"],
                first_time=row["first_time"],
                last_time=row["last_time"],
                count=row["count"],
            )
            for row in found
        ]

    async def busiest_keys(self, tenant_id: str | None, hour: int, limit: int) -> Sequence[BusyKey]:
        arguments: list[object] = [hour, limit, bounds.BUSIEST_KEYS_LOOKED_AT]
        if tenant_id is None:
            found = await self._rows("read_busiest_keys", *arguments)
        else:
            found = await self._rows("read_busiest_keys_of_tenant", *arguments, tenant_id)
        return [BusyKey(**row) for row in found]

    async def traffic(self, key_id: str, now: datetime) -> Traffic:
        found = await self._rows("read_traffic", key_id, now, DenialReason.INVALID_SECRET, bounds.USES_PER_KEY)
        if not found:
            return Traffic(uses_hour=0, uses_day=0, allowed_day=0, used_hours=(), used_before=False)
        row = found[0]
        return Traffic(
            uses_hour=_uses_hour(row, now),
            uses_day=row["uses_day"],
            allowed_day=row["allowed_day"],
            used_hours=row["used_hours"],
            used_before=row["used_before"],
        )

    async def _rows(self, statement: str, *arguments: object) -> list[Any]:
        with told_plainly():
            async with asyncio.timeout(self._patience):
                return list(await self._pool.fetch(SQL[statement], *arguments))


def _uses_hour(row: Any, now: datetime) -> int:
    """How often a key was used within the last hour.

    Where single uses do not reach back that far, the part of the hour before this one is estimated.
    """
    this_hour, latest = row["this_hour"], row["latest_uses"]
    if latest < bounds.USES_PER_KEY:
        return int(max(this_hour, latest))
    passed = (now.minute * 60 + now.second) / 3_600
    return int(this_hour + round(row["hour_before"] * (1 - passed)))
