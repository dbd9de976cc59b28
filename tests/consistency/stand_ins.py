"""What stands between the code that serves and its database: the same, but that it halts where the test can see it."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg

from latchgate_server.core.errors import StoreUnavailable
from latchgate_server.core.model import Question, SecretHash
from latchgate_server.core.ports import FormsRead, Loaded
from latchgate_server.core.record import Record
from latchgate_server.core.replication import Acknowledgements, ChangesRead, FeedLink, FeedLinks, Replicas
from latchgate_server.core.verification import Verification
from latchgate_server.hashing import NewCredential, Peppers, SecretHasher
from latchgate_server.storage.reader import PostgresReader
from latchgate_server.storage.replica_table import PostgresReplicaTable
from latchgate_server.system import SystemEntropy
from tests.consistency.stage import LEASE, MachineClock, Stage

T = TypeVar("T")


class HaltingLink:
    """A feed connection that halts before each statement, and again before its answer is seen.

    is_cut: whether its server is gone, which its next statement will find. is_hinted: whether it ends its idling for a
    glance, rather than for the beat that is due.
    """

    def __init__(self, link: FeedLink, stage: Stage) -> None:
        self._link, self._stage = link, stage
        self.is_cut = False
        self.is_hinted = False

    async def _halting(self, name: str, statement: Coroutine[Any, Any, T]) -> T:
        try:
            await self._stage.halt(f"before {name}")
            if self.is_cut:
                raise StoreUnavailable("cut")
            answer = await statement
        finally:
            statement.close()
        await self._stage.halt(f"after {name}")
        return answer

    async def current_revision(self) -> int:
        return await self._halting("start", self._link.current_revision())

    async def beat(self, replica_id: str, applied_revision: int, lease: float) -> None:
        await self._halting("upsert", self._link.beat(replica_id, applied_revision, lease))

    async def read_changes(self, after: int) -> ChangesRead:
        return await self._halting("read", self._link.read_changes(after))

    async def acknowledge(self, replica_id: str, applied_revision: int) -> None:
        await self._halting("acknowledge", self._link.acknowledge(replica_id, applied_revision))

    async def deregister(self, replica_id: str) -> None:
        await self._halting("deregister", self._link.deregister(replica_id))

    async def changed(self, seconds: float) -> bool:
        await self._stage.halt("idle")
        hinted, self.is_hinted = self.is_hinted, False
        return hinted

    def hint(self) -> None:
        """As the verifier does, which then waits: here for a whole beat."""


class HaltingLinks:
    """Opens feed connections that halt; `current` is the newest."""

    def __init__(self, links: FeedLinks, stage: Stage) -> None:
        self._links, self._stage = links, stage
        self.current: HaltingLink | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[FeedLink]:
        async with self._links.open() as link:
            self.current = HaltingLink(link, self._stage)
            yield self.current


class HeldReader(PostgresReader):
    """Halts once between a load's query and its answer, where `hold` says at which name; `hold_forms`: for forms."""

    def __init__(self, pool: asyncpg.Pool, stage: Stage) -> None:
        super().__init__(pool, LEASE)
        self._stage = stage
        self.hold = self.hold_forms = ""

    async def read_forms(self, after: tuple[int, str], limit: int) -> FormsRead:
        hold, self.hold_forms = self.hold_forms, ""
        found = await super().read_forms(after, limit)
        if hold:
            await self._stage.halt(hold)
        return found

    async def load_records(self, key_ids: Sequence[str]) -> Mapping[str, Loaded]:
        hold, self.hold = self.hold, ""
        found = await super().load_records(key_ids)
        if hold:
            await self._stage.halt(hold)
        return found


class QuickHasher(SecretHasher):
    """Takes the tag of a secret for proof enough: Argon2 has no part in this.

    It can foretell credentials before the keys are made, so that a replica may meet a key that does not exist yet.
    """

    def __init__(self, peppers: Peppers, tag_key: bytes) -> None:
        super().__init__(peppers, tag_key, SystemEntropy(), threads=1)
        self._foretold: deque[NewCredential] = deque()

    async def proves(self, key_id: str, secret: str, sealed: SecretHash) -> bool:
        return not self.refuses(key_id, secret, sealed)

    def foretell(self) -> NewCredential:
        """The credential of the next key that is made."""
        self._foretold.append(super().make_credential("lg"))
        return self._foretold[-1]

    def make_credential(self, prefix: str) -> NewCredential:
        return self._foretold.popleft() if self._foretold else super().make_credential(prefix)

    def forget(self) -> None:
        """Foretell nothing any more."""
        self._foretold.clear()


class NoRenewal:
    """Implements ports.RenewsHashes: nothing here has an old hash."""

    def renew(self, key_id: str, secret: str, sealed: SecretHash) -> None:
        raise AssertionError(key_id)


class NoUsage:
    """Implements ports.RecordsUsage: nobody here asks what keys are used for."""

    def record(self, verification: Verification, question: Question, record: Record | None) -> None:
        """Forget it."""


class HaltingTable(PostgresReplicaTable):
    """The rows of `replicas`. Whoever waits for acknowledgements hears none, and polls as the world's time passes.

    hold: whether the next mutation halts before it reads them.
    """

    def __init__(self, pool: asyncpg.Pool, url: str, clock: MachineClock, stage: Stage) -> None:
        super().__init__(pool, url, LEASE)
        self._clock, self._stage = clock, stage
        self.hold = False

    async def read(self) -> Replicas:
        hold, self.hold = self.hold, False
        if hold:
            await self._stage.halt("before rows")
        return await super().read()

    @asynccontextmanager
    async def acknowledgements(self) -> AsyncIterator[Acknowledgements]:
        yield _Deaf(self._clock)


class _Deaf:
    def __init__(self, clock: MachineClock) -> None:
        self._clock = clock

    async def wait(self, revision: int, seconds: float) -> None:
        await self._clock.sleep(seconds)
