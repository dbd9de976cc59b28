"""A store of rate limits as a server opens it, and buckets to charge in it."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from latchgate_server.core.charging import HeldRate, Holder, Reset
from latchgate_server.core.model import RateLimit
from latchgate_server.storage.valkey_rates import ValkeyRates
from latchgate_server.system import SystemClock

GENEROUS = 10.0
"""Seconds that a call may take where nothing is to fail, however busy the machine is."""
_names = count()


def rate(tenant_id: str, limit: int, holder: Holder = Holder.KEY, reset: Reset | None = None) -> HeldRate:
    """A bucket of its own of that many an hour."""
    held = RateLimit("calls", limit, 3_600.0, 0)
    return HeldRate(holder, f"holder-{next(_names)}", tenant_id, held, reset or Reset(0, 0, 0.0))


@asynccontextmanager
async def opened(address: str, patience: float = GENEROUS) -> AsyncIterator[ValkeyRates]:
    store = ValkeyRates(address, SystemClock(), patience)
    try:
        yield store
    finally:
        await store.close()
        with warnings.catch_warnings():
            # Of a call that was given up while it connected, the library leaves the connection for Python to find.
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


async def taken(store: ValkeyRates, *rates: HeldRate, times: int = 1) -> int:
    """How many of so many calls at once are let through."""
    charged = await asyncio.gather(*(store.charge(rates, 1, 1) for _ in range(times)))
    return sum(answer.admitted for answer in charged)
