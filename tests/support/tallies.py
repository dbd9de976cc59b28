"""What was collected of keys' uses, as a test needs it."""

from __future__ import annotations

from typing import NamedTuple

from latchgate_server.core.model import HashProfile, Key, SecretHash, Tenant
from latchgate_server.core.record import Record, build_record
from latchgate_server.core.usage_batch import UsageBatch
from latchgate_server.verify.tally import Tallies


class LastUse(NamedTuple):
    """The latest use of a key, and how busy it was: a row of UsageBatch.last_uses, as far as tests look at it."""

    key_id: str
    first_time: float
    last_time: float
    busy: tuple[int, int, int]


def record_of(key_id: str) -> Record:
    """A key of the tenant acme and its owner ann."""
    secret = SecretHash(profile=HashProfile.GENERATED, pepper_id="p", phc="", tag=None)
    key = Key(key_id=key_id, tenant_id="acme", owner="ann")
    return build_record(key=key, secret=secret, tenant=Tenant(tenant_id="acme"), plan=None, roles=[], revision=1)


def taken(tallies: Tallies) -> UsageBatch:
    """All that was collected, fit to be written."""
    batch = UsageBatch()
    tallies.seal()
    while tallies.has_sealed:
        tallies.take(batch)
    return batch


def counts_of(batch: UsageBatch) -> list[tuple[str, int, int, int]]:
    """Key id, hour, outcome and count of each row, those of plain keys among them."""
    plain, others = batch.plain, batch.key_counts
    return [
        *zip(plain.key_ids, plain.hours, plain.outcomes, plain.counts, strict=True),
        *zip(others.ids, others.hours, others.outcomes, others.counts, strict=True),
    ]


def sources_of(batch: UsageBatch) -> list[tuple[str, str, int]]:
    """Key id, address and count of each row, those of plain keys among them."""
    plain, others = batch.plain, batch.sources
    rows = [
        *zip(plain.key_ids, plain.client_ips, plain.counts, strict=True),
        *zip(others.key_ids, others.client_ips, others.counts, strict=True),
    ]
    return [row for row in rows if row[1]]


def last_uses_of(batch: UsageBatch) -> list[LastUse]:
    """Each latest use, those of plain keys among them."""
    plain, others = batch.plain, batch.last_uses
    of_plain = zip(plain.key_ids, plain.first_times, plain.last_times, plain.hours, plain.counts, strict=True)
    busy = zip(others.busy_hours, others.busy_uses, others.busy_before, strict=True)
    of_others = zip(others.key_ids, others.first_times, others.last_times, busy, strict=True)
    return [
        *(LastUse(key_id, first, last, (hour, count, 0)) for key_id, first, last, hour, count in of_plain),
        *(LastUse(*row) for row in of_others),
    ]
