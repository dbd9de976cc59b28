"""Decisions that a client may repeat by itself, for as long as the server lets it.

A decision is kept under its whole question, and the key string in that as a digest under a key of this process. It is
repeated only while a lease is valid, and the stream that brings leases brings what to drop as well (watch.py). The
rules, and why they suffice, are in docs/consistency.md, "Clients with a cache of their own". In short:

- a lease counts from when the message that asked for it was sent, on a clock that runs on while the machine sleeps;
- a new stream drops everything;
- an answer is kept only if its revision is not below the one that the stream has told last;
- lease and decision are looked at in one step, which no message comes between.

What depends on limits is never kept, nor is a denial without an identity: nothing would name it once it is wrong.
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b

from latchgate.decoding import seconds_of
from latchgate.frozen import frozen
from latchgate.results import Identity, Query, Verification
from latchgate.uses import Uses
from latchgate.v1 import verify_service_pb2

CACHE_SIZE = 10_000
"""Decisions that are kept, unless told otherwise."""

_LONGEST_SECONDS = 300.0
"""No decision is repeated for longer: a bound on what this page does not foresee."""
_EXPIRY_MARGIN = 0.001
_UNANSWERED = 100
_OVERDUE_SECONDS = 5.0
_OVERDUE_LEASES = 5
_NEVER_KEPT = frozenset({"API_KEY_EXPIRED", "RATE_LIMITED", "QUOTA_EXCEEDED"})
_CLOCK = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))

_Place = tuple[bytes, str, str, str, str, str, str, int]


def monotonic() -> float:
    """Seconds that also pass while the machine is suspended, where its system has such a clock."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheInfo:
    """How a client's cache does.

    entries: decisions in it. hits, misses: how many calls it answered, and did not. has_lease: whether it may answer
    now. problem: why it could not watch the server when it last tried; empty where it can.
    """

    entries: int = 0
    hits: int = 0
    misses: int = 0
    has_lease: bool = False
    problem: str = "there is no cache: cache=True makes one"


class _Entry:
    """expires_at: Unix seconds. until: on the monotonic clock."""

    __slots__ = ("expires_at", "key_id", "tenant", "until", "verification")

    def __init__(self, verification: Verification, identity: Identity, until: float) -> None:
        self.verification = verification
        self.key_id = identity.key_id
        self.tenant = identity.tenant
        self.expires_at = identity.expire_time.timestamp() - _EXPIRY_MARGIN if identity.expire_time else math.inf
        self.until = until


class DecisionCache:
    """A bounded, least-recently-used map from questions to decisions. Safe to share between threads.

    is_active: whether anybody asked it anything since the last message. problem: see CacheInfo.
    """

    def __init__(self, size: int = CACHE_SIZE, clock: Callable[[], float] = monotonic) -> None:
        """size: decisions. clock: see `monotonic`."""
        if size < 1:
            raise ValueError("cache_size: 1 or more is expected")
        self._size = size
        self._clock = clock
        self._secret = os.urandom(32)
        self._lock = threading.Lock()
        self._entries: OrderedDict[_Place, _Entry] = OrderedDict()
        self._of_keys: dict[str, set[_Place]] = {}
        self._of_tenants: dict[str, set[_Place]] = {}
        self._life = 0
        self._known: int | None = None
        self._lease_until = 0.0
        self._lease = 0.0
        self._server_ahead = math.inf  # of the monotonic clock, at most
        self._sequence = 0
        self._sent: dict[int, float] = {}
        self._owed_since: float | None = None
        self._uses = Uses()
        self._hits = self._misses = 0
        self.is_active = False
        self.problem = "no stream is open yet"
        _caches.add(self)

    def info(self) -> CacheInfo:
        """How it does."""
        with self._lock:
            has_lease = self._clock() < self._lease_until
            return CacheInfo(
                entries=len(self._entries),
                hits=self._hits,
                misses=self._misses,
                has_lease=has_lease,
                problem=self.problem,
            )

    # Decisions ------------------------------------------------------------------------------------------------------

    def look_up(  # noqa: PLR0913, PLR0917 - the fields of Query, in their order; a Query would cost as much as the rest
        self,
        key: str,
        client_ip: str = "",
        tenant: str = "",
        requires: str = "",
        capability: str = "",
        act_as: str = "",
        resource: str = "",
        cost: int = 1,
        method: str = "",
        host: str = "",
        path: str = "",
        user_agent: str = "",
        at_least_revision: int = 0,
    ) -> Verification | None:
        """The decision, where it is known and may be repeated now; else None, and the server must be asked."""
        try:
            digest = blake2b(key.encode(), digest_size=16, key=self._secret).digest()
        except (AttributeError, UnicodeEncodeError):
            return None  # not fit to be sent either, which tells why
        place = (digest, client_ip, tenant, requires, capability, act_as, resource, cost)
        with self._lock:
            self.is_active = True
            entry = self._entries.get(place)
            now = self._clock()
            # In one step: nothing that a message brings comes between these checks and the decision.
            if (
                entry is None
                or now >= self._lease_until
                or now >= entry.until
                or now + self._server_ahead > entry.expires_at
                or at_least_revision > (self._known or 0)
                or not self._uses.note(entry.key_id, entry.verification, now, client_ip)
            ):
                self._misses += 1
                return None
            self._hits += 1
            self._entries.move_to_end(place)
            verification = entry.verification
            known = self._known
        if at_least_revision > verification.revision and known is not None:
            return replace(verification, revision=known)
        return verification

    def find(self, query: Query) -> Verification | None:
        """The same for a Query."""
        return self.look_up(
            query.key,
            query.client_ip,
            query.tenant,
            query.requires,
            query.capability,
            query.act_as,
            query.resource,
            query.cost,
            at_least_revision=query.at_least_revision,
        )

    def begin(self) -> int:
        """To be asked before a call is sent, and passed to `keep`: which stream the call belongs to."""
        return self._life

    def keep(self, life: int, query: Query, verification: Verification) -> None:
        """Keep the server's answer, if it may ever be repeated."""
        identity = verification.identity
        if (
            identity is None
            or verification.limits
            or verification.stale
            or verification.reason in _NEVER_KEPT
            or not query.cost
        ):
            return
        shared = replace(identity, claims=frozen(identity.claims), tags=frozen(identity.tags))
        digest = blake2b(query.key.encode(), digest_size=16, key=self._secret).digest()
        place = (
            digest,
            query.client_ip,
            query.tenant,
            query.requires,
            query.capability,
            query.act_as,
            query.resource,
            query.cost,
        )
        entry = _Entry(replace(verification, identity=shared), shared, self._clock() + _LONGEST_SECONDS)
        with self._lock:
            if life == self._life and self._known is not None and verification.revision >= self._known:
                self._drop(place)
                self._entries[place] = entry
                self._of_keys.setdefault(entry.key_id, set()).add(place)
                self._of_tenants.setdefault(entry.tenant, set()).add(place)
                if len(self._entries) > self._size:
                    self._drop(next(iter(self._entries)))

    def _drop(self, place: _Place) -> None:
        entry = self._entries.pop(place, None)
        if entry is None:
            return
        for places, name in ((self._of_keys, entry.key_id), (self._of_tenants, entry.tenant)):
            places[name].discard(place)
            if not places[name]:
                del places[name]

    # The stream -----------------------------------------------------------------------------------------------------

    def restart(self) -> None:
        """Forget everything but what was used: a stream has ended, or another one begins."""
        with self._lock:
            self._life += 1
            self._clear()
            self._known = None
            self._lease_until = 0.0
            self._server_ahead = math.inf
            self._sent.clear()
            self._owed_since = None

    def next_message(self) -> verify_service_pb2.WatchKeysRequest:
        """What to send now: how far this client has come, and what it has answered alone. A lease counts from here."""
        with self._lock:
            self.is_active = False
            now = self._clock()
            self._sequence += 1
            self._sent[self._sequence] = now
            if self._owed_since is None:
                self._owed_since = now
            if len(self._sent) > _UNANSWERED:
                del self._sent[next(iter(self._sent))]
            return verify_service_pb2.WatchKeysRequest(
                applied_revision=self._known or 0, sequence=self._sequence, uses=self._uses.take(now)
            )

    def hear(self, message: verify_service_pb2.WatchKeysResponse) -> bool:
        """Take what the server says: first what to drop, then the lease.

        Whether it must be acknowledged at once: nobody waits for a client without a lease.
        """
        with self._lock:
            if message.drop_all:
                self._clear()
            for of, names in ((self._of_keys, message.key_ids), (self._of_tenants, message.tenant_ids)):
                for name in names:
                    for place in list(of.get(name, ())):
                        self._drop(place)
            is_new = self._known not in (None, message.revision) and self._clock() < self._lease_until
            self._known = message.revision
            self._take_lease(message)
            return is_new

    @property
    def pause(self) -> float:
        """For how long nothing need be said, in seconds: a third of the lease."""
        return min(max(self._lease / 3, 0.02), 20.0) if self._lease else 0.3

    @property
    def overdue(self) -> float:
        """For how long the server has owed an answer, in seconds, where that is too long; else 0.

        Each message is answered, with a lease or without. Five lease lengths are too long, and at least 5 s, which is
        also the bound before the first lease.
        """
        owed_since = self._owed_since
        owed_for = 0.0 if owed_since is None else self._clock() - owed_since
        return owed_for if owed_for > max(_OVERDUE_SECONDS, _OVERDUE_LEASES * self._lease) else 0.0

    def _take_lease(self, message: verify_service_pb2.WatchKeysResponse) -> None:
        sent_at = self._sent.get(message.sequence)
        if sent_at is None:
            return
        # With those before it, of which only the last is answered where the server has not come to them one by one.
        for sequence in [sequence for sequence in self._sent if sequence <= message.sequence]:
            del self._sent[sequence]
        self._owed_since = next(iter(self._sent.values()), None)
        if not message.HasField("lease"):
            return
        self._lease = seconds_of(message.lease)
        self._lease_until = max(self._lease_until, sent_at + self._lease)
        if message.HasField("server_time"):
            # Its clock may have come as far as if it had answered the moment that it was asked.
            self._server_ahead = seconds_of(message.server_time) - sent_at

    def _clear(self) -> None:
        self._entries.clear()
        self._of_keys.clear()
        self._of_tenants.clear()

    def forget_in_child(self) -> None:
        """Be of no use in a process that was forked off: the stream stays with its parent."""
        self._lock = threading.Lock()
        self._uses = Uses()
        self.restart()


_caches: weakref.WeakSet[DecisionCache] = weakref.WeakSet()


def _forget_in_child() -> None:
    for cache in _caches:
        cache.forget_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
