"""Keys that a secret scanner found in public: disabled at once where the secrets found are genuine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from latchgate_server.admin.access import Caller
from latchgate_server.admin.audit import Change
from latchgate_server.admin.barrier import Propagation
from latchgate_server.admin.mutations import Mutation, Mutations
from latchgate_server.core import key_format
from latchgate_server.core.model import KeyState
from latchgate_server.core.ports import Reader
from latchgate_server.core.record import Record
from latchgate_server.hashing import SecretHasher


class Leaks:
    """Takes reports of leaked keys."""

    def __init__(self, read: Reader, mutations: Mutations, hasher: SecretHasher) -> None:
        self._read = read
        self._mutations = mutations
        self._hasher = hasher

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
        presented = key_format.parse(key_string)
        if presented is None or presented.secret is None:
            return ""
        key_id, secret = presented.key_id, presented.secret
        if not self._hasher.is_genuine_key_id(key_id) or not key_format.is_whole_secret(key_id, secret):
            return ""
        record = (await self._read.load_records([key_id]))[key_id].record
        if not isinstance(record, Record) or not caller.sees_tenant(record.identity.tenant_id):
            return ""
        return key_id if await self._hasher.proves(key_id, secret, record.secret) else ""


async def _disable(mutation: Mutation, key_id: str, reason: str) -> None:
    transaction = mutation.transaction
    before = await transaction.read.get_key(key_id)
    if before is None or before.state is not KeyState.ACTIVE:
        return
    await transaction.update_key(before, replace(before, state=KeyState.DISABLED))
    after = await transaction.read.get_key(key_id)
    mutation.audit(Change(before=before, after=after, reason=reason))
