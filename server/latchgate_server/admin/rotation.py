"""Rotation: a successor alike in all but the secret, and a while in which both keys live."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from latchgate_server.admin.access import Caller, require_visible
from latchgate_server.admin.audit import Change
from latchgate_server.admin.barrier import Propagation
from latchgate_server.admin.guard import guard_whole_key
from latchgate_server.admin.mutations import Mutation, Mutations
from latchgate_server.admin.plans import plan_of_tenant
from latchgate_server.admin.repeats import key_made_before
from latchgate_server.core import key_format, lifecycle
from latchgate_server.core.model import HashProfile, Key, KeyState
from latchgate_server.core.ports import RepeatableCall
from latchgate_server.hashing import NewCredential, SecretHasher


class Rotation:
    """Replaces keys."""

    def __init__(self, mutations: Mutations, hasher: SecretHasher, default_prefix: str) -> None:
        """default_prefix: leads the ids of successors to keys whose ids are not of our form."""
        self._mutations = mutations
        self._hasher = hasher
        self._default_prefix = default_prefix

    async def rotate(
        self,
        caller: Caller,
        key_id: str,
        *,
        grace: float,
        expire_time: datetime | None,
        call: RepeatableCall | None,
    ) -> tuple[Key, NewCredential | None, Key, Propagation]:
        """Create the key's successor; returns it, its credential, and the key as it is now.

        grace: seconds that the key stays valid; 0 revokes it at once. expire_time: the successor's; None: as far from
        now as the key's was from its creation, or never. A repeated request returns the first successor, without
        credential. Raises ResourceNotFound, InvalidRequest where the id of the request was another call's,
        IllegalTransition, EscalationRefused, Overloaded.
        """
        # The prefix of the id that was asked for: whether such a key exists is looked at under the lock.
        credential = self._hasher.make_credential(key_format.prefix_of(key_id) or self._default_prefix)
        sealed = await self._hasher.seal(credential.key_id, credential.secret, HashProfile.GENERATED)

        async def change(mutation: Mutation) -> tuple[Key, NewCredential | None, Key]:
            transaction, admitted = mutation.transaction, mutation.caller
            before = require_visible(transaction.key, key_id, admitted)
            if first := await key_made_before(mutation, call):
                return first, None, before
            now = transaction.time
            expired = before.expired or (before.expire_time is not None and before.expire_time <= now)
            lifecycle.check_rotation(before.state, expired=expired, has_successor=bool(before.successor_key_id))
            successor = _successor(before, credential.key_id, admitted.key_id, now, expire_time)
            plan = await plan_of_tenant(transaction.read, before.tenant_id)
            # Whoever rotates a key is told its successor's secret, and so must hold all that it holds.
            await guard_whole_key(admitted, transaction.read, None, successor, plan)
            after = _retired(before, credential.key_id, now, grace)

            await transaction.insert_key(successor, sealed)
            retired = await transaction.update_key(before, after)
            if call:
                await transaction.insert_request(admitted.key_id, call, successor.key_id)
            created = require_visible(await transaction.read.get_key(successor.key_id), successor.key_id, admitted)
            mutation.audit(Change(before=None, after=created))
            mutation.audit(Change(before=before, after=retired))
            return created, credential, retired

        (key, told, predecessor), propagation = await self._mutations.run(caller, change, key_id)
        return key, told, predecessor, propagation


def _successor(before: Key, key_id: str, actor: str, now: datetime, expire_time: datetime | None) -> Key:
    """A key alike in all but the secret; its dates lie as far from now as the old key's from its creation."""
    assert before.create_time is not None, "a stored key has one"
    shift = now - before.create_time
    own_end = before.expire_time + shift if before.expire_time else None
    end = expire_time or own_end
    return replace(
        before,
        key_id=key_id,
        expire_time=end,
        expired=end is not None and end <= now,
        rotate_by_time=before.rotate_by_time + shift if before.rotate_by_time else None,
        created_by=actor,
        predecessor_key_id=before.key_id,
        successor_key_id="",
        state=KeyState.ACTIVE,
        revoke_time=None,
        revocation_reason="",
    )


def _retired(before: Key, successor_key_id: str, now: datetime, grace: float) -> Key:
    """The key with its end set: its expire_time never moves later."""
    if grace == 0:
        return replace(
            before,
            successor_key_id=successor_key_id,
            state=KeyState.REVOKED,
            revoke_time=now,
            revocation_reason=f"rotated to {successor_key_id}",
        )
    end = now + timedelta(seconds=grace)
    if before.expire_time is not None:
        end = min(end, before.expire_time)
    return replace(before, successor_key_id=successor_key_id, expire_time=end)
