"""What is lent and spent of quotas: implements core.limit_stores.QuotaLedger."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from latchgate_server.core.limit_stores import Portion, PortionWanted, Unspent
from latchgate_server.storage.failures import told_plainly
from latchgate_server.storage.queries import SQL


class PostgresQuotaLedger:
    """Lends portions in one statement, which is committed when it returns."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def lend(self, wanted: Sequence[PortionWanted]) -> Sequence[Portion]:
        quotas = [wish.quota for wish in wanted]
        with told_plainly():
            rows = await self._pool.fetch(
                SQL["lend_quotas"],
                [quota.bucket for quota in quotas],
                [quota.quota.period.name for quota in quotas],
                [quota.quota.limit for quota in quotas],
                [quota.reset.spent for quota in quotas],
                [quota.reset.time for quota in quotas],
                [wish.least for wish in wanted],
                [wish.due for wish in wanted],
                [wish.want for wish in wanted],
            )
        by_place = {row["place"]: row for row in rows}
        ordered = [by_place[place] for place in range(1, len(wanted) + 1)]
        return [
            Portion(row["units"], row["left_over"], row["seconds_left"], row["period_start"], row["timeline"])
            for row in ordered
        ]

    async def take_back(self, unspent: Sequence[Unspent]) -> None:
        with told_plainly():
            await self._pool.execute(
                SQL["take_back_quotas"],
                [portion.bucket for portion in unspent],
                [portion.period_start for portion in unspent],
                [portion.units for portion in unspent],
                [portion.timeline for portion in unspent],
            )
