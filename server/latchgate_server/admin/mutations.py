"""The one way to change anything: lock, look again who asks, change, audit, commit, wait for the replicas."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from latchgate_server import tracing
from latchgate_server.admin.access import Access, Caller
from latchgate_server.admin.audit import Actor, AuditTrail, Change
from latchgate_server.admin.barrier import Barrier, Propagation
from latchgate_server.admin.last_administrator import guard_last_administrator
from latchgate_server.core.ports import Store, Transaction
from latchgate_server.hashing import Peppers
from latchgate_server.spans import SpanName

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Mutation:
    """What a use case is given to work with: the transaction, who asks, and the audit log."""

    transaction: Transaction
    caller: Caller
    _trail: AuditTrail

    def audit(self, change: Change) -> None:
        """Note a change. A mutation that notes none is taken to have changed nothing."""
        self._trail.add(change)


class Mutations:
    """Runs use cases that change something."""

    def __init__(self, store: Store, access: Access, peppers: Peppers, barrier: Barrier) -> None:
        self._store = store
        self._access = access
        self._peppers = peppers
        self._barrier = barrier

    async def run(
        self, caller: Caller, change: Callable[[Mutation], Awaitable[Result]], key_id: str = ""
    ) -> tuple[Result, Propagation]:
        """Run a use case in a transaction and wait until every replica decides on what it changed.

        key_id: of the key that is to be changed, if it is one: the transaction then begins with it.
        Whatever it raises undoes it. Raises AdminKeyRejected or PermissionMissing where the caller lost its rights
        meanwhile, LastAdministrator where nobody would be left who can administer everything, Overloaded where the
        lock is not to be had, StoreUnavailable.
        """
        with tracing.span(SpanName.CHANGE):
            result, revision, timeline = await self._commit(caller, change, key_id)
        return result, await self._barrier.wait(revision, timeline)

    async def _commit(
        self, caller: Caller, change: Callable[[Mutation], Awaitable[Result]], key_id: str
    ) -> tuple[Result, int, str]:
        """What the use case returns, and the revision and timeline to wait for."""
        async with self._store.change(caller.key_id, key_id) as transaction:
            admitted = await self._access.admit_again(caller, transaction)
            actor = Actor(key_id=admitted.key_id, address=admitted.address)
            trail = AuditTrail(transaction, self._peppers, actor, admitted.method)
            result = await change(Mutation(transaction, admitted, trail))
            await guard_last_administrator(admitted, transaction, self._store.read, trail.changes)
            await trail.write()
            # What changed nothing waits for the state that it found, which others may not have applied yet.
            revision = transaction.revision - 1 if trail.is_empty else transaction.revision
        return result, revision, transaction.timeline
