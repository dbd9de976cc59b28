"""What keys are used for, as far as an administrator may know. Reads alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

from latchgate_server.admin.access import Caller, require_visible
from latchgate_server.admin.paging import Page, PageRequest, PageTokens
from latchgate_server.core import bounds
from latchgate_server.core.errors import IllegalTransition, InvalidRequest, ResourceNotFound
from latchgate_server.core.model import Key
from latchgate_server.core.ports import Clock, Reader
from latchgate_server.core.retirement import Retirement, judge
from latchgate_server.core.usage import HOUR as _HOUR_SECONDS
from latchgate_server.core.usage import BusyKey, KeySource, KeyUse, Traffic, UsageReader, outcome_counts

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
_NO_TRAFFIC = Traffic(uses_hour=0, uses_day=0, allowed_day=0, used_hours=(), used_before=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageQuery:
    """Whose decisions to count, and over what time. One of both ids is set; length: HOUR or DAY.

    start: where a bucket starts. end: not included.
    """

    key_id: str = ""
    tenant_id: str = ""
    start: datetime
    end: datetime
    length: timedelta

    def starts(self) -> Iterator[datetime]:
        """Where the buckets start."""
        start = self.start
        while start < self.end:
            yield start
            start += self.length


@dataclass(frozen=True, slots=True)
class Bucket:
    """The decisions of one interval. denied: by the name of the reason."""

    start: datetime
    allowed: int
    denied: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationState:
    """How far traffic has moved. old: None where it was deleted."""

    old: Key | None
    new: Key | None
    of_old: Traffic
    of_new: Traffic
    retirement: Retirement


class Usage:
    """Usage."""

    def __init__(self, read: Reader, usage: UsageReader, tokens: PageTokens, clock: Clock) -> None:
        self._read = read
        self._usage = usage
        self._tokens = tokens
        self._clock = clock

    async def count(self, caller: Caller, query: UsageQuery) -> Sequence[Bucket]:
        """The decisions about a key or tenant, a bucket for each interval. Raises ResourceNotFound."""
        by = "hour" if query.length == HOUR else "day"
        if query.key_id:
            require_visible(await self._read.get_key(query.key_id), query.key_id, caller)
            counts = await self._usage.key_usage(query.key_id, query.start, query.end, by)
        else:
            tenant_id = query.tenant_id
            if not caller.sees_tenant(tenant_id) or await self._read.get_tenant(tenant_id) is None:
                raise ResourceNotFound("tenant", tenant_id)
            counts = await self._usage.tenant_usage(tenant_id, query.start, query.end, by)
        found = {start: outcome_counts(list(each)) for start, each in groupby(counts, lambda count: count.start)}
        return [Bucket(start, *found.get(start, (0, {}))) for start in query.starts()]

    async def uses(self, caller: Caller, key_id: str) -> Sequence[KeyUse]:
        """The latest uses of a key, newest first. Raises ResourceNotFound."""
        require_visible(await self._read.get_key(key_id), key_id, caller)
        return await self._usage.key_uses(key_id)

    async def sources(self, caller: Caller, key_id: str, page: PageRequest) -> Page[KeySource]:
        """The addresses that a key was used from, the most recent first. Raises ResourceNotFound."""
        require_visible(await self._read.get_key(key_id), key_id, caller)
        start = self._tokens.start(caller, key_id, page)
        found = await self._usage.key_sources(key_id, _after(start), page.limit + 1)
        return self._tokens.page(
            caller, key_id, found, page.limit, lambda source: f"{source.last_time.isoformat()} {source.client_ip}"
        )

    async def busiest(self, caller: Caller, tenant_id: str | None, page: PageRequest) -> tuple[int, Sequence[BusyKey]]:
        """The hour that it is, since 1970, and the keys with the most uses in it and in the one before.

        tenant_id: whose keys; None: all that the caller sees. A ranking has no further pages: it changes meanwhile.
        """
        hour = int(self._clock.now() // _HOUR_SECONDS)
        limit = min(page.limit, bounds.BUSIEST_KEYS)
        if tenant_id is not None and not caller.sees_tenant(tenant_id):
            return hour, []
        return hour, await self._usage.busiest_keys(tenant_id or caller.only_tenant, hour, limit)

    async def rotation(self, caller: Caller, key_id: str) -> RotationState:
        """How far traffic has moved from a key to its successor. key_id: of either.

        Raises ResourceNotFound, and IllegalTransition for a key that was not rotated.
        """
        key = require_visible(await self._read.get_key(key_id), key_id, caller)
        if not key.successor_key_id and not key.predecessor_key_id:
            raise IllegalTransition(key.state, "followed to a successor", "not part of a rotation")
        old: Key | None = key
        new: Key | None = key
        if key.successor_key_id:
            new = await self._other(caller, key.successor_key_id)
        else:
            old = await self._other(caller, key.predecessor_key_id)
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        of_old, of_new = await self._traffic(old, now), await self._traffic(new, now)
        retirement = _judged(old, of_old, of_new, now)
        return RotationState(old=old, new=new, of_old=of_old, of_new=of_new, retirement=retirement)

    async def _other(self, caller: Caller, key_id: str) -> Key | None:
        """The other key of a rotation; None where it was deleted, or was given to another owner."""
        key = await self._read.get_key(key_id)
        return key if key is not None and caller.sees_key(key) else None

    async def _traffic(self, key: Key | None, now: datetime) -> Traffic:
        return _NO_TRAFFIC if key is None else await self._usage.traffic(key.key_id, now)


def _judged(old: Key | None, of_old: Traffic, of_new: Traffic, now: datetime) -> Retirement:
    if old is None:
        return Retirement(True, "The old key is gone already.")
    return judge(old, of_old, of_new, now)


def _after(position: str) -> tuple[datetime, str] | None:
    if not position:
        return None
    time, _, address = position.partition(" ")
    try:
        return datetime.fromisoformat(time), address
    except ValueError:
        raise InvalidRequest.of("page_token", "not one that this list gave; ask for the first page again") from None
