"""Rate limits in Valkey or Redis, exact for all processes: implements core.limit_stores.RateStore.

One script charges all limits of a decision in one round trip, on the store's own clock. Its keys name the tenant as
their hash tag, so that a cluster keeps them in one slot.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import valkey.asyncio
from valkey.exceptions import ValkeyError

from latchgate_server.core.charging import HeldRate, backlog_since_reset
from latchgate_server.core.errors import StoreUnavailable
from latchgate_server.core.limit_stores import Charged
from latchgate_server.core.ports import Clock

_CONNECTIONS = 32
_PATIENCE_SECONDS = 0.15

# As core/rate.py says it, in microseconds. A key holds when its bucket is full again; one that is missing is a bucket
# not seen since it was last full, or since its limit was reset.
_CHARGE = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local need, take = tonumber(ARGV[1]), tonumber(ARGV[2])
local admitted, backlogs = 1, {}
for i, key in ipairs(KEYS) do
    local interval, burst, initial = tonumber(ARGV[3 * i]), tonumber(ARGV[3 * i + 1]), tonumber(ARGV[3 * i + 2])
    local full_at = redis.call('GET', key)
    local backlog = full_at and tonumber(full_at) - now or initial
    backlog = math.min(math.max(backlog, 0), burst * interval)
    if need > burst or backlog + need * interval > burst * interval * (1 + 1e-9) then
        admitted = 0
    end
    backlogs[i] = backlog
end
if admitted == 1 and take > 0 then
    for i, key in ipairs(KEYS) do
        backlogs[i] = backlogs[i] + take * tonumber(ARGV[3 * i])
        redis.call('SET', key, string.format('%.17g', now + backlogs[i]), 'PX', math.ceil(backlogs[i] / 1000) + 1000)
    end
end
for i, backlog in ipairs(backlogs) do
    backlogs[i] = string.format('%.17g', backlog)
end
return {admitted, backlogs}
"""


class ValkeyRates:
    """A store at one address."""

    def __init__(self, address: str, clock: Clock) -> None:
        """address: such as `valkey://HOST:6379/0`; of Redis likewise, with `redis` in place of `valkey`."""
        self._clock = clock
        pool = valkey.asyncio.BlockingConnectionPool.from_url(
            re.sub(r"^redis(s?)://", r"valkey\1://", address),
            max_connections=_CONNECTIONS,
            timeout=_PATIENCE_SECONDS,
            socket_timeout=_PATIENCE_SECONDS,
            socket_connect_timeout=_PATIENCE_SECONDS,
        )
        self._client = valkey.asyncio.Valkey.from_pool(pool)
        self._script = self._client.register_script(_CHARGE)

    async def charge(self, rates: Sequence[HeldRate], need: int, take: int) -> Charged:
        now = self._clock.now()
        keys = [f"latchgate:{{{held.tenant_id}}}:{held.bucket}" for held, _ in rates]
        arguments: list[float] = [need, take]
        for held, rate in rates:
            arguments += [rate.interval * 1e6, rate.burst, backlog_since_reset(held, rate, now) * 1e6]
        try:
            admitted, backlogs = await self._script(keys=keys, args=arguments)
        except (ValkeyError, OSError) as error:
            raise StoreUnavailable("the store of rate limits cannot be reached") from error
        return Charged(bool(admitted), [float(backlog) / 1e6 for backlog in backlogs])

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
