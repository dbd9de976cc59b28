"""Revoking many keys at once, for the hour in which one leaks."""

from __future__ import annotations

from dataclasses import replace

from latchgate_server.admin.access import Caller
from latchgate_server.admin.audit import Change
from latchgate_server.admin.barrier import Propagation
from latchgate_server.admin.keys import revoked, visible_filter
from latchgate_server.admin.last_administrator import guard_bulk
from latchgate_server.admin.mutations import Mutation, Mutations
from latchgate_server.core.errors import InvalidRequest
from latchgate_server.core.model import KeyState
from latchgate_server.core.ports import KeyFilter, Reader

_STRETCH = 200
_LIVE = (KeyState.ACTIVE, KeyState.DISABLED)


class BulkRevocation:
    """Revokes every key that matches."""

    def __init__(self, read: Reader, mutations: Mutations) -> None:
        self._read = read
        self._mutations = mutations

    async def count(self, caller: Caller, matching: KeyFilter) -> int:
        """How many keys `revoke` would revoke now. Raises InvalidRequest for an empty filter."""
        visible = _live(caller, matching)
        return 0 if visible is None else await self._read.count_keys(visible)

    async def revoke(self, caller: Caller, matching: KeyFilter, reason: str) -> tuple[int, Propagation]:
        """Revoke every key that matches and is not revoked yet, the caller's own last; returns how many.

        Works in stretches, each a change of its own, so that nobody waits long for the revision clock: where it fails
        in the middle, repeating it goes on. Raises InvalidRequest for an empty filter, LastAdministrator.
        """
        visible = _live(caller, matching)
        total = 0

        async def change(mutation: Mutation) -> tuple[int, bool]:
            if visible is not None and total == 0:
                await guard_bulk(mutation.caller, mutation.transaction, visible)
            return await _revoke_stretch(mutation, visible, reason)

        while True:
            (count, done), propagation = await self._mutations.run(caller, change)
            total += count
            if done:
                return total, propagation


async def _revoke_stretch(mutation: Mutation, visible: KeyFilter | None, reason: str) -> tuple[int, bool]:
    """Revoke some of the keys; returns how many, and whether none is left."""
    if visible is None:
        return 0, True
    transaction, own = mutation.transaction, mutation.caller.key_id
    found = [key for _, key in await transaction.read.list_keys(visible, None, _STRETCH)]
    # With its own key gone the caller could not go on.
    others = [key for key in found if key.key_id != own]
    for before in others or found:
        after = await transaction.update_key(before, revoked(before, transaction.time, reason))
        mutation.audit(Change(before=before, after=after, reason=reason))
    return len(others or found), not others


def _live(caller: Caller, matching: KeyFilter) -> KeyFilter | None:
    """What of the filter the caller sees and is not revoked yet; None for nothing."""
    if matching == KeyFilter():
        raise InvalidRequest.of("filter", "at least one field; to revoke every key, filter by states")
    visible = visible_filter(caller, matching)
    if visible is None:
        return None
    states = tuple(state for state in matching.states or _LIVE if state is not KeyState.REVOKED)
    return replace(visible, states=states) if states else None
