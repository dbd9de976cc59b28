"""Reading the audit log: pages of events, and the proof that nobody tampered with it."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator
from dataclasses import dataclass, fields, replace

from latchgate_server.admin.access import Caller
from latchgate_server.admin.audit import chain_hash
from latchgate_server.admin.paging import Page, PageRequest, PageTokens, position_from, position_to
from latchgate_server.core.errors import PepperMissing
from latchgate_server.core.ports import AuditEvent, AuditFilter, ListPosition, Reader
from latchgate_server.hashing import Peppers

_STRETCH = 1_000


class AuditLog:
    """Lists events."""

    def __init__(self, read: Reader, tokens: PageTokens) -> None:
        self._read = read
        self._tokens = tokens

    async def list(self, caller: Caller, matching: AuditFilter, page: PageRequest) -> Page[AuditEvent]:
        """The events that match and that the caller sees, newest first."""
        if matching.tenant_id is not None and not caller.sees_tenant(matching.tenant_id):
            return Page([], "")
        visible = replace(matching, tenant_id=matching.tenant_id or caller.only_tenant)
        query = repr(visible)
        start = self._tokens.start(caller, query, page)
        found = await self._read.list_audit_events(visible, position_from(start), page.limit + 1)
        return self._tokens.page(
            caller, query, found, page.limit, lambda event: position_to(ListPosition(event.sequence, event.time))
        )


@dataclass(frozen=True, slots=True)
class Flaw:
    """The first event at which the chain does not hold. sequence: its number; description: what is wrong."""

    sequence: int
    description: str


@dataclass(frozen=True, slots=True)
class ChainCheck:
    """What was checked. events: how many; head: sequence and hash of the last, to be kept elsewhere as an anchor."""

    events: int
    head: tuple[int, bytes]
    flaw: Flaw | None


async def check_chain(read: Reader, peppers: Peppers, anchor: tuple[int, bytes] | None) -> ChainCheck:
    """Walk the whole chain from its first event.

    anchor: a head that an earlier walk gave; shows a cut-off end as well. Raises StoreUnavailable.
    """
    events, previous, sequence = 0, b"", 0
    met_anchor = anchor is None or anchor == (0, b"")
    async for event in _every_event(read):
        flaw = _flaw(event, sequence, previous, peppers)
        if flaw is None and anchor is not None and event.sequence == anchor[0]:
            met_anchor = hmac.compare_digest(event.hash, anchor[1])
            if not met_anchor:
                flaw = Flaw(event.sequence, "is another event than the anchor names: the log was written anew")
        if flaw is not None:
            return ChainCheck(events, (sequence, previous), flaw)
        events, previous, sequence = events + 1, event.hash, event.sequence
    if not met_anchor and anchor is not None:
        return ChainCheck(events, (sequence, previous), Flaw(anchor[0], "is missing: the end of the log was cut off"))
    return ChainCheck(events, (sequence, previous), None)


def _flaw(event: AuditEvent, sequence: int, previous: bytes, peppers: Peppers) -> Flaw | None:
    if event.sequence != sequence + 1:
        return Flaw(sequence + 1, "is missing")
    content = {f.name: getattr(event, f.name) for f in fields(event) if f.name not in ("pepper_id", "hash")}
    try:
        expected = chain_hash(peppers, event.pepper_id, previous, content)
    except PepperMissing:
        return Flaw(event.sequence, f"was written under pepper {event.pepper_id}, which is not configured")
    if not hmac.compare_digest(expected, event.hash):
        return Flaw(event.sequence, "was altered, or put in the place of another")
    return None


async def _every_event(read: Reader) -> AsyncIterator[AuditEvent]:
    after = 0
    while stretch := await read.audit_events_after(after, _STRETCH):
        for event in stretch:
            yield event
        after = stretch[-1].sequence
