"""Makes hashes anew, in the background, that were made under an older pepper or other parameters."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import structlog

from latchgate_server import log_events
from latchgate_server.admin.audit import Actor, AuditTrail, Change
from latchgate_server.core.errors import CannotDecide
from latchgate_server.core.model import SYSTEM_ACTOR, SecretHash
from latchgate_server.core.ports import Clock, Store
from latchgate_server.hashing import Peppers, SecretHasher

QUEUE_LENGTH = 1_000
PAUSE_SECONDS = 0.05

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Job:
    key_id: str
    secret: str = field(repr=False)
    sealed: SecretHash


class HashRenewal:
    """Implements ports.RenewsHashes. What does not fit into the queue waits for the key's next use after a restart."""

    def __init__(self, store: Store, hasher: SecretHasher, peppers: Peppers, clock: Clock) -> None:
        self._store = store
        self._hasher = hasher
        self._peppers = peppers
        self._clock = clock
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue(QUEUE_LENGTH)

    def renew(self, key_id: str, secret: str, sealed: SecretHash) -> None:
        """Queue a secret that just verified, if there is room."""
        if not self._jobs.full():
            self._jobs.put_nowait(_Job(key_id, secret, sealed))

    async def run(self) -> None:
        """Work through the queue, one hash at a time and with pauses, so that administrators find the lock free."""
        while True:
            job = await self._jobs.get()
            try:
                await self._renew(job)
            except CannotDecide as error:
                _log.warning(log_events.HOUSEKEEPING_FAILED, task="renewal", key_id=job.key_id, error=str(error))
            await self._clock.sleep(PAUSE_SECONDS)

    async def _renew(self, job: _Job) -> None:
        sealed = await self._hasher.renewed(job.key_id, job.secret, job.sealed)
        async with self._store.change() as transaction:
            key = await transaction.read.get_key(job.key_id)
            if key is None or not await transaction.replace_secret(job.key_id, job.sealed, sealed):
                return
            trail = AuditTrail(transaction, self._peppers, Actor(key_id=SYSTEM_ACTOR), "RenewHash")
            trail.add(Change(before=key, after=key, reason=f"now under pepper {sealed.pepper_id}"))
            await trail.write()
