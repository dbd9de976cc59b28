"""Quotas: portions of them in this process's memory, borrowed from a ledger that all processes share.

A portion is spent without asking anybody. What is lent counts as spent until it is given back, so the sum that is
granted never exceeds the quota; a process that crashes wastes at most what it had borrowed, since nobody knows what it
had spent.

A portion is to last for some seconds at least, so that most decisions ask nobody, and to be so small a part of what is
left that nobody misses it: where it is wasted, or lies idle here while another process looks for the last units.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final

import structlog

from latchgate_server import log_events, observability
from latchgate_server.core import bounds
from latchgate_server.core.charging import HeldQuota
from latchgate_server.core.errors import CannotDecide, Overloaded
from latchgate_server.core.limit_stores import Portion, PortionWanted, QuotaLedger, Unspent
from latchgate_server.core.ports import Clock
from latchgate_server.verify.waiting import fail

_SMALL_SHARE: Final = 100
"""What is no more than one part in so many of what nobody has been lent is missed by nobody."""

_FIRST_SIZE: Final = 16
_USUAL_SIZE: Final = 64
"""No portion is smaller where this is a small share: calls come in bursts."""

_LASTS_SECONDS: Final = 20.0
"""For so long a portion is to last, as long as it is a small share."""

_GROWTH: Final = 8
"""A portion is at most so many times as large as the one before."""

_IDLE_SECONDS: Final = 1.0  # after which a portion is given back that others may miss
_LONG_IDLE_SECONDS: Final = 60.0  # and every other one
_REFUSAL_SECONDS: Final = 0.5
_GATHER_SECONDS: Final = 0.05
"""For so long wishes gather that nobody waits for: a statement for many costs little more than one for a single one."""

_BATCH: Final = 1_000
_WAITING: Final = 20_000

_log = structlog.get_logger()


@dataclass(slots=True)
class Borrowed:
    """What this process holds of one quota. First in it is what every decision looks at, close together in memory.

    left: units to spend. elsewhere: units that nobody had been lent when the ledger was last asked, at `asked_at`.
    ends_at: of the period, on the monotonic clock, and so are the other times. size: how much to ask for next time.
    is_asked: whether more is under way that nobody waits for.
    lent: what was left after the ledger was last asked. look_at: when to see whether it lies idle.
    """

    quota: HeldQuota
    left: int = 0
    elsewhere: int = 0
    ends_at: float = -math.inf
    used_at: float = -math.inf
    size: int = 1
    has_end: bool = True
    is_asked: bool = False
    asked_at: float = -math.inf
    lent: int = 0
    look_at: float = math.inf
    period_start: str = ""
    timeline: str = ""

    @property
    def idle_at(self) -> float:
        """From then on it is better given back, if it is not used before."""
        is_missed = self.left * _SMALL_SHARE > self.elsewhere
        return self.used_at + (_IDLE_SECONDS if is_missed else _LONG_IDLE_SECONDS)

    def seconds_left(self, now: float) -> float | None:
        """To the end of the period; None: it has no end."""
        return max(0.0, self.ends_at - now) if self.has_end else None


@dataclass(slots=True)
class _Wish:
    """What waiting calls need of one quota. most: the largest of their costs. due: all of them together."""

    quota: HeldQuota
    most: int
    due: int
    granted: asyncio.Future[None] = field(repr=False)


class Quotas:
    """The portions of one process."""

    def __init__(self, ledger: QuotaLedger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._borrowed: dict[str, Borrowed] = {}
        # A heap: when to see what lies idle, the next one first.
        self._looks: list[tuple[float, str]] = []
        self._wishes: dict[str, _Wish] = {}
        self._asking: asyncio.Task[None] | None = None
        self._gathering: asyncio.Task[None] | None = None
        self._giving_back = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._borrowed)

    def known(self, quotas: Sequence[HeldQuota], cost: int, now: float) -> list[Borrowed] | None:
        """What is held of each; None where memory cannot tell of all whether they have the cost left.

        now: on the monotonic clock.
        """
        held = []
        for quota in quotas:
            borrowed = self._current(quota, now)
            if borrowed is None or (borrowed.left < cost and not _refuses(borrowed, cost, now)):
                return None
            held.append(borrowed)
        return held

    def _current(self, quota: HeldQuota, now: float) -> Borrowed | None:
        """What is held of exactly this quota, in this period."""
        borrowed = self._borrowed.get(quota.bucket)
        if borrowed is None or now >= borrowed.ends_at:
            return None
        return borrowed if borrowed.quota is quota or borrowed.quota.quota == quota.quota else None

    def take(self, held: Sequence[Borrowed], cost: int, now: float) -> None:
        """Spend the cost of each, which all have it; and borrow more in time. held: from `known`, in this same step."""
        for borrowed in held:
            borrowed.left -= cost
            borrowed.used_at = now
            is_low = borrowed.elsewhere and borrowed.left * 4 < borrowed.size
            if is_low and not borrowed.is_asked and len(self._wishes) < _WAITING:
                self._wish_ahead(borrowed)

    def put_back(self, taken_from: Sequence[Borrowed], cost: int) -> None:
        """Undo a `take` whose decision came out as a denial."""
        for borrowed in taken_from:
            # What was given back meanwhile, or is of an ended period, is gone; then the cost is wasted.
            if self._borrowed.get(borrowed.quota.bucket) is borrowed:
                borrowed.left += cost

    # Borrowing ------------------------------------------------------------------------------------------------------

    async def borrow(self, quotas: Sequence[HeldQuota], cost: int) -> None:
        """Ask the ledger for those of which memory cannot tell whether they have the cost left.

        Raises CannotDecide where it does not answer, Overloaded where too many wait already.
        """
        now = self._clock.monotonic()
        missing = [quota for quota in quotas if self.known((quota,), cost, now) is None]
        try:
            wishes = [self._wish(quota, cost) for quota in missing]
        finally:
            self._ask_now()
        await asyncio.gather(*(asyncio.shield(wish) for wish in wishes))

    def _wish(self, quota: HeldQuota, cost: int) -> asyncio.Future[None]:
        bucket = quota.bucket
        wish = self._wishes.get(bucket)
        if wish is None:
            if len(self._wishes) >= _WAITING:
                raise Overloaded("too many quotas are being asked for at once")
            wish = self._wishes[bucket] = _Wish(quota, 0, 0, asyncio.get_running_loop().create_future())
        wish.quota = quota  # where a limit was changed meanwhile: who holds the other one asks again
        wish.most = max(wish.most, cost)
        wish.due = min(bounds.LIMIT_VALUE, wish.due + cost)
        return wish.granted

    def _wish_ahead(self, borrowed: Borrowed) -> None:
        """Wish for more, for which nobody waits."""
        borrowed.is_asked = True
        _ = self._wish(borrowed.quota, 0)
        if self._gathering is None or self._gathering.done():
            self._gathering = asyncio.get_running_loop().create_task(self._ask_soon())

    async def _ask_soon(self) -> None:
        await self._clock.sleep(_GATHER_SECONDS)
        self._ask_now()

    def _ask_now(self) -> None:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._ask())

    async def _ask(self) -> None:
        while self._wishes:
            batch = [self._wishes.pop(bucket) for bucket in list(self._wishes)[:_BATCH]]
            try:
                await self._ask_for(batch)
            except BaseException as error:
                for wish in batch:
                    fail(wish.granted, error)
                if not isinstance(error, Exception):
                    raise
            else:
                for wish in batch:
                    if not wish.granted.done():
                        wish.granted.set_result(None)
            finally:
                for wish in batch:
                    borrowed = self._borrowed.get(wish.quota.bucket)
                    if borrowed is not None:
                        borrowed.is_asked = False

    async def _ask_for(self, batch: Sequence[_Wish]) -> None:
        now = self._clock.monotonic()
        # Of a limit that was changed nothing is kept: the new one may be lower than what this process still has.
        await self._hand_back([wish.quota.bucket for wish in batch if self._current(wish.quota, now) is None])
        wanted = [self._wanted(wish, now) for wish in batch]
        began = self._clock.monotonic()
        portions = await self._ledger.lend(wanted)
        observability.QUOTA_PORTIONS.inc(len(portions))
        for wish, portion in zip(batch, portions, strict=True):
            self._add(wish.quota, portion, began)

    def _wanted(self, wish: _Wish, now: float) -> PortionWanted:
        borrowed = self._current(wish.quota, now)
        if borrowed is None:
            return PortionWanted(wish.quota, wish.most, wish.due, _first_size(wish.quota))
        borrowed.size = _next_size(borrowed, now)
        least, due = max(0, wish.most - borrowed.left), max(0, wish.due - borrowed.left)
        return PortionWanted(wish.quota, least, due, borrowed.size)

    def _add(self, quota: HeldQuota, portion: Portion, began: float) -> None:
        """Keep a portion.

        began: a moment before the ledger was asked, so that the period ends here no later than it does there.
        """
        borrowed = self._borrowed.get(quota.bucket)
        if borrowed is None or borrowed.period_start != portion.period_start:
            borrowed = self._borrowed[quota.bucket] = Borrowed(quota, used_at=began, size=_first_size(quota))
        borrowed.left += portion.units
        borrowed.lent = borrowed.left
        borrowed.elsewhere = portion.left
        borrowed.asked_at = began
        borrowed.has_end = portion.seconds_left is not None
        borrowed.ends_at = math.inf if portion.seconds_left is None else began + portion.seconds_left
        borrowed.period_start, borrowed.timeline = portion.period_start, portion.timeline
        if borrowed.idle_at < borrowed.look_at:
            self._look_when_idle(borrowed)

    # Giving back ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Give back what lies idle, for as long as the process lives."""
        while True:
            await self._clock.sleep(_IDLE_SECONDS / 2)
            await self.give_back_idle()

    async def close(self) -> None:
        """Give back everything. Nothing may be taken any more."""
        if self._gathering is not None:
            self._gathering.cancel()
        if self._asking is not None:
            await asyncio.wait({self._asking})
        async with self._giving_back:
            await self._hand_back(list(self._borrowed))

    async def give_back_idle(self) -> None:
        """Give back what lies idle now."""
        async with self._giving_back:
            await self._hand_back(self._idle(self._clock.monotonic()))

    def _idle(self, now: float) -> list[str]:
        """The buckets of what lies idle. Looks at none that cannot lie idle yet: there may be very many."""
        idle = []
        while self._looks and self._looks[0][0] <= now:
            look_at, bucket = heappop(self._looks)
            borrowed = self._borrowed.get(bucket)
            if borrowed is None or borrowed.look_at != look_at:
                continue  # it was looked at before, or is gone
            if borrowed.idle_at <= now:
                idle.append(bucket)
            else:
                self._look_when_idle(borrowed)
        return idle

    def _look_when_idle(self, borrowed: Borrowed) -> None:
        borrowed.look_at = borrowed.idle_at
        heappush(self._looks, (borrowed.look_at, borrowed.quota.bucket))

    async def _hand_back(self, buckets: Sequence[str]) -> None:
        """Let go of what is held of these buckets."""
        # First out of hand and then back in the ledger: never in both.
        let_go = [self._borrowed.pop(bucket) for bucket in buckets if bucket in self._borrowed]
        unspent = [
            Unspent(borrowed.quota.bucket, borrowed.left, borrowed.period_start, borrowed.timeline)
            for borrowed in let_go
            if borrowed.left
        ]
        for start in range(0, len(unspent), _BATCH):
            try:
                await self._ledger.take_back(unspent[start : start + _BATCH])
            except CannotDecide as error:
                # It may have worked or not: to try again could give back twice.
                _log.warning(log_events.QUOTA_PORTIONS_LOST, error=str(error))


def _first_size(quota: HeldQuota) -> int:
    """How much to ask for of a quota of which little is known."""
    return max(_FIRST_SIZE, min(_USUAL_SIZE, quota.quota.limit // _SMALL_SHARE))


def _next_size(borrowed: Borrowed, now: float) -> int:
    """How much to ask for, as the last portion was used."""
    small = borrowed.elsewhere // _SMALL_SHARE
    used_a_second = (borrowed.lent - borrowed.left) / max(now - borrowed.asked_at, 1e-3)
    wanted = min(int(used_a_second * _LASTS_SECONDS), borrowed.size * _GROWTH)
    return max(1, min(small, _USUAL_SIZE), min(wanted, max(small, _FIRST_SIZE)))


def _refuses(borrowed: Borrowed, cost: int, now: float) -> bool:
    """Whether memory can tell that the cost is not left anywhere."""
    return borrowed.left + borrowed.elsewhere < cost and now < borrowed.asked_at + _REFUSAL_SECONDS
