"""Proves secrets with Argon2, once for all who ask at the same time, and remembers what was proven."""

from __future__ import annotations

import asyncio
import hmac

from latchgate_server.core.model import HashProfile
from latchgate_server.core.ports import Clock, RenewsHashes
from latchgate_server.core.record import Record
from latchgate_server.hashing import SecretHasher
from latchgate_server.verify.cache import Entry
from latchgate_server.verify.wrong_tries import WrongTries


class Proofs:
    """The proofs of one process."""

    def __init__(self, hasher: SecretHasher, renewal: RenewsHashes, clock: Clock) -> None:
        self._hasher = hasher
        self._renewal = renewal
        self._running: dict[tuple[str, str, bytes], asyncio.Task[bool]] = {}
        self._wrong_tries = WrongTries(clock)

    async def is_proven(self, entry: Entry, secret: str, client_ip: str) -> bool:
        """Whether Argon2 says that the secret is right. Calls for the same key and secret share the answer.

        client_ip: where wrong tries of an imported key's secret count. Raises Overloaded after too many of them.
        """
        record = entry.record
        assert record is not None, "a key that does not exist has no secret"
        digest = self._hasher.digest(secret)
        if entry.proven is not None and hmac.compare_digest(entry.proven, digest):
            return True
        if record.secret.profile in (HashProfile.FOREIGN, HashProfile.IMPORTED):
            return await self._is_proven_in_bounds(entry, record, secret, client_ip)
        return await self._is_proven_by_hash(entry, record, secret)

    async def _is_proven_in_bounds(self, entry: Entry, record: Record, secret: str, client_ip: str) -> bool:
        key_id = record.identity.key_id
        self._wrong_tries.begin(key_id, client_ip)
        try:
            proven = await self._is_proven_by_hash(entry, record, secret)
        except Exception:
            self._wrong_tries.forgive(key_id, client_ip)  # nobody told whether it was wrong
            raise
        if proven:
            self._wrong_tries.forgive(key_id, client_ip)
        return proven

    async def _is_proven_by_hash(self, entry: Entry, record: Record, secret: str) -> bool:
        digest = self._hasher.digest(secret)
        same = (record.identity.key_id, record.secret.phc, digest)
        proof = self._running.get(same)
        if proof is None:
            proof = asyncio.get_running_loop().create_task(self._prove(record, secret))
            self._running[same] = proof
            proof.add_done_callback(lambda _: self._running.pop(same))
        # Whoever gives up must not take the others' answer away.
        proven = await asyncio.shield(proof)
        if proven:
            entry.proven = digest
        return proven

    async def _prove(self, record: Record, secret: str) -> bool:
        key_id = record.identity.key_id
        proven = await self._hasher.proves(key_id, secret, record.secret)
        if proven and self._hasher.needs_renewal(record.secret):
            self._renewal.renew(key_id, secret, record.secret)
        return proven
