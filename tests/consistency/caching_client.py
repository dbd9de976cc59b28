"""A client with a cache in a world that only the test moves: its messages arrive when the test says so, or never."""

from __future__ import annotations

from latchgate import Query, Verification
from latchgate.cache import DecisionCache
from latchgate.results import verification_from
from latchgate.v1.verify_service_pb2 import VerifyResponse, WatchKeysRequest, WatchKeysResponse
from latchgate_server.hashing import NewCredential
from latchgate_server.transport.convert_verify import verification_to
from latchgate_server.transport.convert_watch import news_to
from latchgate_server.verify.watchers import Watcher
from tests.consistency.mutants.mutant import BrokenPromise
from tests.consistency.stage import MachineClock
from tests.consistency.world import READ, Replica, World


class CachingClient:
    """Watches one replica at a time; what it does is the code that clients run."""

    def __init__(self, world: World, replica: Replica, rate: float = 1.0) -> None:
        """rate: how fast its clock runs, in its own seconds for each second of the world."""
        self._world, self._replica = world, replica
        self._clock = MachineClock(world.stage, 7.0, rate)
        self.cache = DecisionCache(100, self._clock.monotonic)
        self._watcher: Watcher | None = None

    async def open(self, replica: Replica | None = None) -> None:
        """Open a stream, to another replica where that is given, and be granted a lease."""
        self._replica = replica or self._replica
        self.cache.restart()
        self._watcher = self._replica.watchers.open(sees_all=True)
        await self.exchange()

    def say(self) -> WatchKeysRequest:
        """A message that is on its way."""
        return self.cache.next_message()

    async def answer(self, message: WatchKeysRequest) -> WatchKeysResponse:
        """It arrives; the answer, which is on its way."""
        assert self._watcher is not None
        lease_left = self._replica.feed.lease_left()
        self._replica.watchers.hear(self._watcher, message.sequence, message.applied_revision, lease_left)
        return news_to(await self._watcher.news(), self._clock.now())

    async def exchange(self) -> None:
        """Say something and hear the answer at once; over a new stream where the replica has ended this one."""
        if self._watcher is not None and self._watcher.is_ended:
            await self.open()
        else:
            self.cache.hear(await self.answer(self.say()))

    def break_stream(self) -> None:
        """The replica sees the stream's end; the client does not yet."""
        assert self._watcher is not None
        self._replica.watchers.leave(self._watcher)

    async def told(self, key: NewCredential) -> Verification:
        """What the replica answers, on its way."""
        return verification_from(VerifyResponse.FromString(verification_to(await self._replica.verify(key))))

    def keep(self, key: NewCredential, told: Verification) -> None:
        """Such an answer arrives."""
        self.cache.keep(self.cache.begin(), _query(key), told)

    async def learn(self, key: NewCredential) -> None:
        """Ask, and know that the key is allowed."""
        self.keep(key, await self.told(key))
        assert self.allows(key)

    def allows(self, key: NewCredential) -> bool:
        """Whether it allows the key by itself, now."""
        known = self.cache.find(_query(key))
        return known is not None and known.allowed

    def must_not_allow(self, key: NewCredential) -> None:
        """Raise BrokenPromise where it does."""
        if self.allows(key):
            raise BrokenPromise("a revoked key is allowed by a client's cache")


def _query(key: NewCredential) -> Query:
    return Query(key=key.key_string, requires=READ)
