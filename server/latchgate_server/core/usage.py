"""What keys are used for, as it is collected, written and read.

A *use* of a key is a decision about it once its secret is proven, allowed or denied. Whoever knows no more than a key
id leaves a count behind, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, Protocol

from latchgate_server.core.model import DenialReason, Question
from latchgate_server.core.record import Record
from latchgate_server.core.usage_batch import UsageBatch
from latchgate_server.core.verification import Verification

HOUR: Final = 3_600.0
"""Seconds that one counter counts over."""

DORMANT_SECONDS: Final = 30 * 86_400.0
"""A key that was not used for so long has slept."""

ALLOWED: Final = 0
"""The outcome of a decision that allowed; every other outcome is the number of a DenialReason."""


Event = tuple[float, Verification, Question, Record | None]
"""When (Unix seconds), what was decided on which question, and the key that was asked for, where it exists."""


class RecordsUsage(Protocol):
    """Whoever keeps account of decisions."""

    def record(self, verification: Verification, question: Question, record: Record | None) -> None:
        """Note a decision. record: of the key that was asked for, None where there is none."""
        ...


class KeepsNoAccount:
    """Forgets decisions: those of whoever only wants to know, and sees to it that they are counted if need be."""

    def record(self, verification: Verification, question: Question, record: Record | None) -> None:
        """Do nothing."""


class NewSource(NamedTuple):
    """A key was used from an address that it is not known to have been used from."""

    key_id: str
    client_ip: str


class Awakening(NamedTuple):
    """A key was used that had not been since `slept_since`: its latest use, or its creation."""

    key_id: str
    slept_since: datetime


@dataclass(frozen=True, slots=True)
class Written:
    """What writing brought to light. A key's very first address is no new source."""

    new_sources: Sequence[NewSource] = ()
    awakenings: Sequence[Awakening] = ()


class UsageWriter(Protocol):
    """Writes what was collected. Raises StoreUnavailable or Overloaded where the database takes nothing."""

    async def write(self, sequence: int, batch: UsageBatch) -> Written:
        """Write a batch, all or nothing.

        sequence: rises with each batch. Repeating one with the same batch, because nobody knows whether it was
        committed, counts nothing twice.
        """
        ...

    async def trim(self, sources_of: Sequence[str], uses_of: Sequence[str]) -> None:
        """Forget all but the most recent addresses, and all but the latest uses, of these keys."""
        ...

    async def leave(self) -> None:
        """Forget this writer: it writes nothing more."""
        ...


@dataclass(frozen=True, slots=True)
class UsageCount:
    """So many decisions of one outcome in the bucket that begins at `start`."""

    start: datetime
    outcome: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUse:
    """One use, as it was stored. denial_reason: None where the key was allowed."""

    time: datetime
    denial_reason: DenialReason | None
    client_ip: str
    user: str
    method: str
    host: str
    path: str
    user_agent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySource:
    """An address that a key was used from."""

    client_ip: str
    first_time: datetime
    last_time: datetime
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BusyKey:
    """How often a key was used in an hour and in the one before it."""

    key_id: str
    tenant_id: str
    display_name: str
    this_hour: int
    hour_before: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """How one key was used lately, wrong secrets apart.

    uses_hour, uses_day: within the last hour and day; allowed_day: those of the day that were allowed.
    used_hours: the hours of the last 30 days with a use, in order.
    used_before: whether it was used before those 30 days.
    """

    uses_hour: int
    uses_day: int
    allowed_day: int
    used_hours: Sequence[datetime]
    used_before: bool


class UsageReader(Protocol):
    """Reads of what was written. All raise StoreUnavailable or Overloaded where the database gives no answer."""

    async def key_usage(self, key_id: str, start: datetime, end: datetime, by: str) -> Sequence[UsageCount]:
        """Decisions about a key in [start, end), by `hour` or `day` in UTC; in order, without the empty buckets."""
        ...

    async def tenant_usage(self, tenant_id: str, start: datetime, end: datetime, by: str) -> Sequence[UsageCount]:
        """Decisions about all keys of a tenant, likewise."""
        ...

    async def key_uses(self, key_id: str) -> Sequence[KeyUse]:
        """The latest uses of a key, newest first."""
        ...

    async def key_sources(self, key_id: str, after: tuple[datetime, str] | None, limit: int) -> Sequence[KeySource]:
        """Up to `limit` addresses, the most recently used first; after: last time and address of the one before."""
        ...

    async def busiest_keys(self, tenant_id: str | None, hour: int, limit: int) -> Sequence[BusyKey]:
        """Up to `limit` keys with the most uses in an hour (since 1970) and the one before it, the most used first.

        tenant_id: whose keys; None: everybody's. Where more keys were used about as often as the last of them than can
        be looked at, it is any of these.
        """
        ...

    async def traffic(self, key_id: str, now: datetime) -> Traffic:
        """How a key was used up to now."""
        ...


def outcome_counts(counts: Sequence[UsageCount]) -> tuple[int, Mapping[str, int]]:
    """The counts of one bucket: how many were allowed, and how many denied by the name of the reason."""
    allowed = sum(each.count for each in counts if each.outcome == ALLOWED)
    denied = {DenialReason(each.outcome).name: each.count for each in counts if each.outcome != ALLOWED}
    return allowed, denied
