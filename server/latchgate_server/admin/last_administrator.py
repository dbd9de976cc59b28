"""The guard against locking everybody out: somebody is always left who can administer everything.

Such an administrator is like the first one: a key of the tenant `latchgate` that holds `*` and `latchgate.*`, that is
let in from where the call comes from, and that never expires. A change after which there is none is refused, unless
there was none before it either; then it must at least leave one who is let in for now, where there was one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from enum import IntEnum

from latchgate_server.admin.access import Caller
from latchgate_server.admin.audit import Change
from latchgate_server.core.errors import LastAdministrator
from latchgate_server.core.model import ROOT_TENANT, Key, KeyState, Question, Role, Tenant
from latchgate_server.core.policy import decide
from latchgate_server.core.ports import KeyFilter, ListPosition, Reader, Transaction
from latchgate_server.core.record import Record

EVERYTHING = ("*", "latchgate.*")
"""What the first administrator holds."""

_EXEMPT = frozenset({"ReportLeakedKeys"})
"""A leaked key is disabled at once, whoever's it is."""

_LOOKED_AT = 100
_PAGE = 1_000


class _Left(IntEnum):
    """Who is left; each is better than the one before."""

    NOBODY = 0
    SOMEBODY_FOR_NOW = 1
    SOMEBODY_FOR_GOOD = 2


async def guard_last_administrator(
    caller: Caller, transaction: Transaction, committed: Reader, changes: Sequence[Change]
) -> None:
    """Refuse what was done in the transaction if nobody would be left.

    committed: reads outside of the transaction. changes: all of its changes. Raises LastAdministrator.
    """
    if caller.method in _EXEMPT or not any(_concerns_administrators(change) for change in changes):
        return
    left = await _left(caller, transaction, transaction.read)
    # Nobody else changes anything while this transaction holds the clock: what is committed is the state before it.
    if left < _Left.SOMEBODY_FOR_GOOD and left < await _left(caller, transaction, committed):
        raise LastAdministrator


async def guard_bulk(caller: Caller, transaction: Transaction, matching: KeyFilter) -> None:
    """Refuse, before any of them goes, to end all keys that match if nobody would be left. Raises LastAdministrator."""
    if matching.tenant_id not in (None, ROOT_TENANT) or KeyState.ACTIVE not in (matching.states or KeyState):
        return
    read, active = transaction.read, replace(matching, tenant_id=ROOT_TENANT, states=(KeyState.ACTIVE,))
    ending: set[str] = set()
    last: ListPosition | None = None
    while page := await read.list_keys(active, last, _PAGE):
        ending.update(key.key_id for _, key in page)
        last = page[-1][0]
    left = await _left(caller, transaction, read, without=ending)
    if left < _Left.SOMEBODY_FOR_GOOD and left < await _left(caller, transaction, read):
        raise LastAdministrator


def _concerns_administrators(change: Change) -> bool:
    """Whether fewer may administer after the change. What is new takes nothing away."""
    match change.before:
        case Tenant() | Key() as resource:
            return resource.tenant_id == ROOT_TENANT
        case Role() as role:
            return role.tenant_id in ("", ROOT_TENANT)
        case _:
            return False


async def _left(caller: Caller, transaction: Transaction, read: Reader, without: Collection[str] = ()) -> _Left:
    """Who is left in the state that `read` sees, but for the keys `without`."""
    question, now = Question(client_ip=caller.address), transaction.time.timestamp()
    found = await read.administrators(ROOT_TENANT, EVERYTHING, _LOOKED_AT + len(without))
    loaded = await read.load_records([key_id for key_id in found if key_id not in without])
    left = _Left.NOBODY
    for record in (entry.record for entry in loaded.values()):
        if isinstance(record, Record) and decide(record, question, now) is None:
            left = max(left, _Left.SOMEBODY_FOR_NOW if record.identity.expire_time else _Left.SOMEBODY_FOR_GOOD)
    return left
