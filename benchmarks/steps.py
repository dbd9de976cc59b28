"""Where the time of one Verify goes: its steps one by one, in this process and without a network.

`python -m benchmarks.steps` prints microseconds for each, drawn from as many keys as a busy server has. Steps are timed
apart, so they add up to a little more than the whole.
"""

# ruff: noqa: T201 - it reports to whoever ran it
from __future__ import annotations

import asyncio
import gc
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from benchmarks.house import ADDRESS, PERMISSIONS
from latchgate.v1.verify_service_pb2 import VerifyRequest
from latchgate_server import observability
from latchgate_server.core import key_format
from latchgate_server.core.limit_stores import Portion, PortionWanted, Unspent
from latchgate_server.core.model import (
    HashProfile,
    Key,
    Limit,
    Question,
    Quota,
    QuotaPeriod,
    RateLimit,
    Role,
    SecretHash,
    Tenant,
)
from latchgate_server.core.policy import decide
from latchgate_server.core.ports import Loaded
from latchgate_server.core.record import Record, build_record
from latchgate_server.core.verification import Verification
from latchgate_server.hashing import NewCredential, Peppers, SecretHasher
from latchgate_server.system import SystemClock, SystemEntropy
from latchgate_server.transport.convert_verify import question_from, verification_to
from latchgate_server.transport.request_ids import RequestIds
from latchgate_server.transport.verify_service import VerifyServicer
from latchgate_server.verify.cache import RecordCache
from latchgate_server.verify.feed import Feed
from latchgate_server.verify.limits import LimitCharger
from latchgate_server.verify.loader import RecordLoader
from latchgate_server.verify.noticing import Noticing
from latchgate_server.verify.outage import Outage
from latchgate_server.verify.quotas import Quotas
from latchgate_server.verify.rates import LocalRates
from latchgate_server.verify.usage import UsageCollector
from latchgate_server.verify.verifier import Verifier
from latchgate_server.verify.watchers import Watchers

KEYS = 10_000
_CALLS = 20_000
_ROUNDS = 7
_ROLES = (
    Role(role_id="reader", permissions=("orders.read", "stock.read", "customers.read")),
    Role(role_id="exporter", permissions=("orders.export", "reports.*")),
)
_RATE = RateLimit(name="requests", limit=1_000_000_000, period=1.0)
_QUOTA = Quota(name="prepaid", limit=1_000_000_000, period=QuotaPeriod.LIFETIME)
_RANGES = ("192.0.2.0/24", "203.0.113.0/24", "2001:db8::/32")


def record_of(
    key_id: str, roles: Sequence[Role] = _ROLES, ranges: Sequence[str] = _RANGES, limits: Sequence[Limit] = (_RATE,)
) -> Record:
    """A record as a load makes it."""
    return build_record(
        key=Key(
            key_id=key_id,
            tenant_id="bench",
            display_name="Nightly export",
            owner="ada",
            role_ids=tuple(role.role_id for role in roles),
            ip_allowlist_enabled=True,
            ip_allowlist=tuple(ranges),
            limits=tuple(limits),
            lineage_id=key_id,
        ),
        secret=SecretHash(profile=HashProfile.GENERATED, pepper_id="", phc="", tag=b"1234"),
        tenant=Tenant(tenant_id="bench"),
        plan=None,
        roles=list(enumerate(roles, 1)),
        revision=1,
    )


class _EndlessLedger:
    """A ledger that lends everything at once, so that nobody asks it again."""

    async def lend(self, wanted: Sequence[PortionWanted]) -> Sequence[Portion]:
        return [Portion(_QUOTA.limit, 0, None, "", "") for _ in wanted]

    async def take_back(self, unspent: Sequence[Unspent]) -> None:
        raise NotImplementedError


class _NoUsage:
    def record(self, verification: Verification, question: Question, record: Record | None) -> None:
        pass


class Hot:
    """A data plane in this process, with every key in memory and its secret proven."""

    def __init__(self, records: Callable[[str], Record], count: int, *, counts_uses: bool = True) -> None:
        """records: makes the record of a key id. count: keys. counts_uses: as every server does."""
        clock = SystemClock()
        self.hasher = SecretHasher(Peppers([bytes(32)]), bytes(32), SystemEntropy())
        self.cache = RecordCache(count)
        self.limits = LimitCharger(LocalRates(clock), None, Quotas(_EndlessLedger(), clock), clock, processes=lambda: 1)
        self.usage = UsageCollector(cast("Any", None), clock, Noticing(clock))
        feed = Feed(cast("Any", None), self.cache, Watchers(clock, 1.0), clock, replica_id="bench", lease=1e9)
        feed._valid_until = float("inf")  # noqa: SLF001 - there is no database to beat to
        nobody = cast("Any", None)
        self.verifier = Verifier(
            cache=self.cache,
            loader=RecordLoader(nobody, self.cache),
            feed=feed,
            outage=Outage(feed, clock, serve_cached=False, max_staleness=0.0),
            hasher=self.hasher,
            renewal=nobody,
            clock=clock,
            limits=self.limits,
            usage=self.usage if counts_uses else _NoUsage(),
        )
        self.servicer = VerifyServicer(self.verifier, clock, RequestIds(SystemEntropy()), cast("Any", None))
        self.credentials = [self.hasher.make_credential("lg") for _ in range(count)]
        for credential in self.credentials:
            self._keep(credential, records(credential.key_id))

    def _keep(self, credential: NewCredential, record: Record) -> None:
        entry = self.cache.finish_load(self.cache.begin_load(), credential.key_id, Loaded(record, 1))
        entry.proven = self.hasher.digest(credential.secret)


def microseconds(step: Callable[[Any], object], inputs: Sequence[Any], calls: int = _CALLS) -> float:
    """What a step costs, over inputs drawn from all of them; the median of several rounds, in CPU time."""
    # A stride that shares no factor with how many there are: neighbours in memory are not used one after the other.
    drawn = [inputs[number * 7_919 % len(inputs)] for number in range(calls)]
    rounds = []
    for _ in range(_ROUNDS):
        began = time.thread_time()
        for one in drawn:
            step(one)
        rounds.append((time.thread_time() - began) / calls)
    return (statistics.median(rounds) - _loop(drawn)) * 1e6


def _loop(drawn: Sequence[Any]) -> float:
    began = time.thread_time()
    for one in drawn:
        _nothing(one)
    return (time.thread_time() - began) / len(drawn)


def _nothing(_: object) -> None:
    pass


def main() -> None:
    """Print the table."""
    gc.set_threshold(20_000, 10, 10)  # as the server does
    hot = Hot(record_of, KEYS)
    hasher, verifier = hot.hasher, hot.verifier
    requests = [_request(credential) for credential in hot.credentials]
    payloads = [request.SerializeToString() for request in requests]
    questions = itertools.repeat(question_from(requests[0]))
    question = next(questions)
    verifications = [verifier.verify_from_memory(request.key, question) for request in requests]
    records = [verification.record for verification in verifications if verification and verification.record]
    assert len(records) == KEYS
    clock = SystemClock()
    steps: Sequence[tuple[str, Callable[[Any], object], Sequence[Any]]] = (
        ("parse the request", VerifyRequest.FromString, payloads),
        ("read the question", question_from, requests),
        ("take the credential apart", key_format.parse, [request.key for request in requests]),
        ("find the record", hot.cache.get, [credential.key_id for credential in hot.credentials]),
        ("the lease", lambda _: clock.monotonic(), requests),
        ("digest the secret", hasher.digest, [credential.secret for credential in hot.credentials]),
        ("the checks", lambda record: decide(record, question, 1.0), records),
        ("charge the rate limit", lambda record: hot.limits.charge_from_memory(record.limits, 1), records),
        ("note the use", lambda made: hot.usage.record(made, question, made.record), verifications),
        ("put the answer together", verification_to, verifications),
        ("count the decision", lambda _: observability.count_decision(None), requests),
        ("the whole of it", hot.servicer.verify_at_once, payloads),
    )
    for name, step, inputs in steps:
        _tell(name, microseconds(step, inputs))
    _tell("the same, with a quota", _whole(Hot(partial(record_of, limits=(_RATE, _QUOTA)), KEYS)))
    _tell("without limits and uses", _whole(Hot(partial(record_of, limits=()), KEYS, counts_uses=False)))


def _whole(hot: Hot) -> float:
    """What a decision costs, where every quota has been borrowed from before."""
    asked = [_request(credential) for credential in hot.credentials]
    asyncio.run(_ask_all(hot, asked))
    return microseconds(hot.servicer.verify_at_once, [request.SerializeToString() for request in asked])


async def _ask_all(hot: Hot, requests: Sequence[VerifyRequest]) -> None:
    for request in requests:
        verification = await hot.verifier.verify(request.key, question_from(request))
        assert verification.denial_reason is None, verification


def _request(credential: NewCredential) -> VerifyRequest:
    return VerifyRequest(key=credential.key_string, client_ip=ADDRESS, required_permissions=PERMISSIONS)


def _tell(name: str, cost: float) -> None:
    print(f"{name:<28}{cost:6.2f} µs")


if __name__ == "__main__":
    asyncio.run(asyncio.to_thread(main))
