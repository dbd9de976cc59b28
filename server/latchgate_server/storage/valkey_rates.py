"""Rate limits in Valkey or Redis, exact for all processes: implements core.limit_stores.RateStore.

One script charges all limits of a decision in one round trip, on the store's own clock. Its keys name the tenant as
their hash tag, so that a cluster keeps them in one slot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

from valkey.crc import key_slot
from valkey.exceptions import AskError, ClusterError, MovedError, TryAgainError, ValkeyError

from latchgate_server.core.charging import HeldRate, backlog_since_reset
from latchgate_server.core.diagnosis import LimitStoreFacts
from latchgate_server.core.errors import StoreUnavailable
from latchgate_server.core.limit_stores import Charged
from latchgate_server.core.ports import Clock
from latchgate_server.storage.valkey_address import Endpoint, StoreAddress
from latchgate_server.storage.valkey_node import Script, ValkeyNode, reason_of
from latchgate_server.storage.valkey_nodes import ValkeyNodes

_REDIRECTIONS = 5
_MOVING_SECONDS = 0.01

# As core/rate.py says it, in microseconds. A key holds when its bucket is full again; one that is missing is a bucket
# not seen since it was last full, or since its limit was reset.
_CHARGE = Script("""
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
""")


class ValkeyRates:
    """A store: one server, or a cluster. Each call takes `patience` at most, and each server fails by itself."""

    def __init__(self, address: str, clock: Clock, patience: float) -> None:
        """address: see StoreAddress.parse, also for its errors. patience: seconds."""
        self._clock = clock
        self._patience = patience
        self._nodes = ValkeyNodes(StoreAddress.parse(address), patience)

    def node_of(self, tenant_id: str) -> str:
        return self._nodes.owner_name(_slot(tenant_id))

    def nodes(self) -> Collection[str]:
        return {str(owner) for owner in self._nodes.owners()}

    async def charge(self, rates: Sequence[HeldRate], need: int, take: int) -> Charged:
        now = self._clock.now()
        keys = [f"latchgate:{{{each.tenant_id}}}:{each.bucket}" for each in rates]
        arguments: list[float] = [need, take]
        for each in rates:
            arguments += [each.rate.interval * 1e6, each.rate.burst, backlog_since_reset(each, now) * 1e6]
        admitted, backlogs = await self._run(_slot(rates[0].tenant_id), keys, arguments)
        return Charged(bool(admitted), [float(backlog) / 1e6 for backlog in backlogs])

    async def examine(self) -> LimitStoreFacts:
        """Whether every server runs the script. Raises StoreUnavailable where none tells who they are."""
        await self._nodes.look()
        owners = self._nodes.owners()
        silent = [name for name in await asyncio.gather(*map(self._silent, owners)) if name]
        return LimitStoreFacts([str(owner) for owner in owners], silent, self._nodes.slots_without_owner())

    async def close(self) -> None:
        """Close the connections."""
        await self._nodes.close()

    async def _run(self, slot: int, keys: Sequence[str], arguments: Sequence[float]) -> Any:
        """What the script answers where the slot is. Not repeated after a failure: it may have been run."""
        node: ValkeyNode | None = None
        moving = False
        try:
            async with asyncio.timeout(self._patience):
                node = await self._nodes.owner(slot)
                for _ in range(_REDIRECTIONS + 1):
                    run = node.run_while_moving if moving else node.run
                    try:
                        return await run(_CHARGE, keys, arguments)
                    except MovedError as told:
                        node, moving = self._nodes.move(slot, _target(told, node)), False
                    except AskError as told:
                        node, moving = self._nodes.node(_target(told, node)), True
                    except TryAgainError:  # some of the keys have moved already, and some have not yet
                        await asyncio.sleep(_MOVING_SECONDS)
                raise ClusterError("redirected without end")
        except (ValkeyError, OSError) as error:
            if node is None:
                raise StoreUnavailable(f"{self._nodes.owner_name(slot)}: {reason_of(error)}") from error
            self._nodes.doubt(node)
            raise StoreUnavailable(f"{node.endpoint}: {reason_of(error)}") from error

    async def _silent(self, owner: Endpoint) -> str:
        """What is wrong with a server; empty if nothing is."""
        try:
            async with asyncio.timeout(self._patience):
                await self._nodes.node(owner).run(_CHARGE, [], [1, 0])
        except (ValkeyError, OSError) as error:
            return f"{owner}: {reason_of(error)}"
        return ""


def _slot(tenant_id: str) -> int:
    return key_slot(tenant_id.encode())


def _target(told: AskError, by: ValkeyNode) -> Endpoint:
    """Where a redirection leads; one without a host leads to another port of who gave it."""
    return Endpoint(told.host or by.endpoint.host, told.port)
