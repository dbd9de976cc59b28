"""Whoever changes roles past the administrators: by hand, in the database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from tests.consistency.torture.administrator import Gardens, Role
from tests.consistency.torture.client import PERMISSION
from tests.consistency.torture.judge import Phase


class RoleKeeper:
    """Takes a shared role's permission away and gives it back, by hand."""

    def __init__(self, gardens: Gardens) -> None:
        self._gardens = gardens

    async def run(self) -> None:
        """Work until cancelled. Raises Stuck."""
        while True:
            await asyncio.sleep(self._gardens.random.uniform(1, 3))
            role = self._gardens.random.choice(self._gardens.roles)
            await self._set(role, Phase.OFF, [])
            await asyncio.sleep(self._gardens.random.uniform(0, 0.5))
            await self._set(role, Phase.ON, [PERMISSION])

    async def _set(self, role: Role, towards: Phase, permissions: Sequence[str]) -> None:
        role.switch.begin(time.monotonic(), towards)
        await self._gardens.cluster.run_sql(
            "UPDATE roles SET permissions = $2 WHERE role_id = $1", role.role_id, list(permissions)
        )
        await self._gardens.office.wait_for_replicas()
        role.switch.end(time.monotonic(), towards)
        self._gardens.report.changes["roles changed by hand"] += 1
