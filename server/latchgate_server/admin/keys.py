"""Use cases of keys: their making, their changes, their end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime

from latchgate_server.admin.access import Caller, require_visible, tenant_of_new_key
from latchgate_server.admin.audit import Change
from latchgate_server.admin.barrier import Propagation
from latchgate_server.admin.guard import differing, guard_whole_key
from latchgate_server.admin.mutations import Mutation, Mutations
from latchgate_server.admin.paging import Page, PageRequest, PageTokens, position_from, position_to
from latchgate_server.admin.plans import plan_of_tenant
from latchgate_server.admin.repeats import key_made_before
from latchgate_server.core import lifecycle
from latchgate_server.core.errors import EtagMismatch, KeyLimitReached, ResourceNotFound
from latchgate_server.core.model import HashProfile, Key, KeyState
from latchgate_server.core.ports import KeyFilter, Reader, RepeatableCall
from latchgate_server.hashing import NewCredential, SecretHasher


class Keys:
    """Keys."""

    def __init__(
        self, read: Reader, mutations: Mutations, tokens: PageTokens, hasher: SecretHasher, default_prefix: str
    ) -> None:
        """default_prefix: leads the ids of keys for which no other is asked."""
        self._read = read
        self._mutations = mutations
        self._tokens = tokens
        self._hasher = hasher
        self._default_prefix = default_prefix

    async def create(
        self, caller: Caller, draft: Key, prefix: str, call: RepeatableCall | None
    ) -> tuple[Key, NewCredential | None, Propagation]:
        """Create a key and return it with its credential.

        A repeated request creates nothing and returns the first key, without credential. Raises ResourceNotFound for
        its tenant or a role, InvalidRequest where the id of the request was another call's, EscalationRefused,
        KeyLimitReached, Overloaded.
        """
        credential = self._hasher.make_credential(prefix or self._default_prefix)
        # Before the transaction: nobody waits for the revision clock while a secret is hashed.
        sealed = await self._hasher.seal(credential.key_id, credential.secret, HashProfile.GENERATED)

        async def change(mutation: Mutation) -> tuple[Key, NewCredential | None]:
            transaction, admitted = mutation.transaction, mutation.caller
            if first := await key_made_before(mutation, call):
                return first, None
            key = replace(
                draft,
                key_id=credential.key_id,
                tenant_id=tenant_of_new_key(admitted, draft.tenant_id),
                owner=draft.owner or admitted.only_owner or "",
                expired=_has_passed(draft.expire_time, transaction.time),
                state=KeyState.ACTIVE,
                created_by=admitted.key_id,
            )
            plan = await plan_of_tenant(transaction.read, key.tenant_id)
            await guard_whole_key(mutation.caller, transaction.read, None, key, plan)
            if plan and 0 < plan.max_keys <= await transaction.read.count_live_keys(key.tenant_id):
                raise KeyLimitReached(plan.max_keys)
            await transaction.insert_key(key, sealed)
            if call:
                await transaction.insert_request(admitted.key_id, call, key.key_id)
            created = require_visible(await transaction.read.get_key(key.key_id), key.key_id, admitted)
            mutation.audit(Change(before=None, after=created))
            return created, credential

        (key, told), propagation = await self._mutations.run(caller, change)
        return key, told, propagation

    async def get(self, caller: Caller, key_id: str) -> Key:
        """The key. Raises ResourceNotFound."""
        return require_visible(await self._read.get_key(key_id), key_id, caller)

    async def list(self, caller: Caller, matching: KeyFilter, page: PageRequest) -> Page[Key]:
        """The keys that match and that the caller sees; Reader.list_keys says in which order."""
        visible = visible_filter(caller, matching)
        if visible is None:
            return Page([], "")
        query = repr(visible)
        start = self._tokens.start(caller, query, page)
        found = await self._read.list_keys(visible, position_from(start), page.limit + 1)
        numbered = self._tokens.page(caller, query, found, page.limit, lambda item: position_to(item[0]))
        return Page([key for _, key in numbered.items], numbered.next_token)

    async def update(
        self, caller: Caller, key_id: str, changes: Mapping[str, object], etag: str
    ) -> tuple[Key, Propagation]:
        """Give fields of the key new values.

        changes: by the field's name in Key. etag: the one that the change was made on; empty: any.
        Raises ResourceNotFound, EtagMismatch, IllegalTransition, EscalationRefused.
        """

        async def change(mutation: Mutation, before: Key) -> Key:
            if etag and etag != before.etag:
                raise EtagMismatch("key", key_id)
            after = replace(before, **changes)  # type: ignore[arg-type]  # convert.py made them of the fields' types
            if "expire_time" in changes:
                after = replace(after, expired=_has_passed(after.expire_time, mutation.transaction.time))
            lifecycle.check_update(before.state, differing(before, after))
            read = mutation.transaction.read
            plan = await plan_of_tenant(read, before.tenant_id)
            await guard_whole_key(mutation.caller, read, before, after, plan)
            return after

        return await self._change(caller, key_id, "", change)

    async def enable(self, caller: Caller, key_id: str, reason: str) -> tuple[Key, Propagation]:
        """Switch a disabled key on again. Raises ResourceNotFound, IllegalTransition."""

        async def change(_mutation: Mutation, before: Key) -> Key:
            return replace(before, state=lifecycle.enabled(before.state))

        return await self._change(caller, key_id, reason, change)

    async def disable(self, caller: Caller, key_id: str, reason: str) -> tuple[Key, Propagation]:
        """Switch a key off until it is enabled. Raises ResourceNotFound, IllegalTransition."""

        async def change(_mutation: Mutation, before: Key) -> Key:
            return replace(before, state=lifecycle.disabled(before.state))

        return await self._change(caller, key_id, reason, change)

    async def expire(self, caller: Caller, key_id: str, reason: str) -> tuple[Key, Propagation]:
        """Let a key expire now. Raises ResourceNotFound, IllegalTransition."""

        async def change(mutation: Mutation, before: Key) -> Key:
            lifecycle.check_expiry(before.state)
            now = mutation.transaction.time
            end = before.expire_time if _has_passed(before.expire_time, now) else now
            return replace(before, expire_time=end, expired=True)

        return await self._change(caller, key_id, reason, change)

    async def revoke(self, caller: Caller, key_id: str, reason: str) -> tuple[Key, Propagation]:
        """Switch a key off for good. Repeating it is no error. Raises ResourceNotFound."""

        async def change(mutation: Mutation, before: Key) -> Key:
            if before.state is KeyState.REVOKED:
                return before
            return revoked(before, mutation.transaction.time, reason)

        return await self._change(caller, key_id, reason, change)

    async def delete(self, caller: Caller, key_id: str, reason: str) -> Propagation:
        """Remove a key's record. Raises ResourceNotFound, when no replica knows the key any more either."""

        async def change(mutation: Mutation) -> bool:
            transaction = mutation.transaction
            key = transaction.key
            if key is None or not mutation.caller.sees_key(key):
                return False
            await transaction.delete_key(key_id)
            mutation.audit(Change(before=key, after=None, reason=reason))
            return True

        found, propagation = await self._mutations.run(caller, change, key_id)
        if not found:
            # Only now: whoever repeats a call that failed while it waited shall find that it is over.
            raise ResourceNotFound("key", key_id)
        return propagation

    async def _change(
        self, caller: Caller, key_id: str, reason: str, change: Callable[[Mutation, Key], Awaitable[Key]]
    ) -> tuple[Key, Propagation]:
        """Read a key that the caller sees, let `change` say what it becomes, store and audit that."""

        async def whole(mutation: Mutation) -> Key:
            transaction = mutation.transaction
            before = require_visible(transaction.key, key_id, mutation.caller)
            after = await change(mutation, before)
            if after == before:
                return before
            stored = await transaction.update_key(before, after)
            mutation.audit(Change(before=before, after=stored, reason=reason))
            return stored

        return await self._mutations.run(caller, whole, key_id)


def visible_filter(caller: Caller, matching: KeyFilter) -> KeyFilter | None:
    """The filter, narrowed to what exists for the caller; None where that is nothing."""
    if matching.tenant_id is not None and not caller.sees_tenant(matching.tenant_id):
        return None
    if caller.only_owner is not None and matching.owner not in (None, caller.only_owner):
        return None
    return replace(
        matching,
        tenant_id=matching.tenant_id or caller.only_tenant,
        owner=matching.owner or caller.only_owner,
    )


def revoked(key: Key, now: datetime, reason: str) -> Key:
    """The key, switched off for good."""
    return replace(key, state=KeyState.REVOKED, revoke_time=now, revocation_reason=reason)


def _has_passed(time: datetime | None, now: datetime) -> bool:
    return time is not None and time <= now
