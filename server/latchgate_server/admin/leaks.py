"""Keys that a secret scanner found in public: disabled at once where the secrets found are genuine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from latchgate_server.admin.access import Caller
from latchgate_server.admin.audit import Change
from latchgate_server.admin.barrier import Propagation
from latchgate_server.admin.mutations import Mutation, Mutations
from latchgate_server.core.model import KeyState
from latchgate_server.core.ports import KeyVerifier


class Leaks:
    """Takes reports of leaked keys."""

    def __init__(self, verifier: KeyVerifier, mutations: Mutations) -> None:
        self._verifier = verifier
        self._mutations = mutations

    async def report(
        self, caller: Caller, key_strings: Sequence[str], source: str
    ) -> tuple[Sequence[str], Propagation]:
        """Disable the keys whose secrets these are, the last administrator's too.

        Returns, in the order of `key_strings`, the id of each key, or empty where the string is no genuine key or
        belongs to a tenant that the caller does not see. A key that is off already stays as it is.
        """
        key_ids = [await self._proven_key_id(caller, key_string) for key_string in key_strings]

        async def change(mutation: Mutation) -> None:
            for key_id in dict.fromkeys(filter(None, key_ids)):
                await _disable(mutation, key_id, f"leaked: {source}" if source else "leaked")

        _, propagation = await self._mutations.run(caller, change)
        return key_ids, propagation

    async def _proven_key_id(self, caller: Caller, key_string: str) -> str:
        record = await self._verifier.identify(key_string, caller.address)
        if record is None or not caller.sees_tenant(record.identity.tenant_id):
            return ""
        return record.identity.key_id


async def _disable(mutation: Mutation, key_id: str, reason: str) -> None:
    transaction = mutation.transaction
    before = await transaction.read.get_key(key_id)
    if before is None or before.state is not KeyState.ACTIVE:
        return
    after = await transaction.update_key(before, replace(before, state=KeyState.DISABLED))
    mutation.audit(Change(before=before, after=after, reason=reason))
