"""Queries on their way: one, or several that travel together. What both clients do with what comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import grpc

from latchgate.cache import DecisionCache
from latchgate.errors import CallFailed, batch_entry_failed
from latchgate.results import Query, Verification, verification_from
from latchgate.v1 import verify_service_pb2

BATCH_SIZE = 1_000
"""How many queries the server takes at once."""

Answer = Verification | CallFailed


class Single:
    """A query that travels alone. request: the message. cost: what it takes from limits. answer: once it is there."""

    __slots__ = ("answer", "cost", "request")

    def __init__(self, query: Query) -> None:
        self.request = query.to_message()
        self.cost = query.cost
        self.answer: Verification

    def hear(self, response: verify_service_pb2.VerifyResponse) -> CallFailed | None:
        """Take the response. Returns None: it holds a decision."""
        self.answer = verification_from(response)
        return None

    def fail(self, failed: CallFailed) -> None:
        """There will be no answer. Raises it."""
        raise failed


class Batch:
    """Queries that travel together, until each is answered or asking again makes no sense.

    request: those that have no answer yet. cost: the most that one of them takes from limits.
    """

    __slots__ = ("_is_untold", "_places", "_tell", "_undecided", "cost", "request")

    def __init__(
        self, request: verify_service_pb2.BatchVerifyRequest, cost: int, tell: Callable[[int, Answer], object]
    ) -> None:
        """tell: is given each answer, with its query's place."""
        self.request = request
        self.cost = cost
        self._tell = tell
        self._places: Sequence[int] = range(len(request.requests))
        self._undecided: Sequence[CallFailed] = ()
        self._is_untold = True

    def hear(self, response: verify_service_pb2.BatchVerifyResponse) -> CallFailed | None:
        """Tell what was decided. Returns why the rest was not, where that may be asked again."""
        if len(response.responses) != len(self._places):
            return CallFailed(grpc.StatusCode.INTERNAL, "an answer to each query is expected")
        left: dict[int, CallFailed] = {}
        errors = response.errors
        for at, (place, one) in enumerate(zip(self._places, response.responses, strict=True)):
            failed = batch_entry_failed(errors[at].code, errors[at].message) if at in errors else None
            if failed is None:
                self._tell(place, verification_from(one, is_part=True))
            elif failed.code is grpc.StatusCode.UNAVAILABLE:
                left[at] = failed
            else:
                self._tell(place, failed)
        self._is_untold &= len(left) == len(self._places)
        if not left:
            return None
        requests = self.request.requests
        self.request = verify_service_pb2.BatchVerifyRequest(requests=[requests[at] for at in left])
        self._places = [self._places[at] for at in left]
        self._undecided = list(left.values())
        return self._undecided[-1]

    def fail(self, failed: CallFailed) -> None:
        """There will be no other answer. Raises it where the batch as a whole has failed."""
        if self._undecided and failed is self._undecided[-1]:
            failures = self._undecided
        elif self._is_untold:
            raise failed
        else:
            failures = [failed] * len(self._places)
        for place, one in zip(self._places, failures, strict=True):
            self._tell(place, one)


def batches_of(queries: Iterable[Query], size: int) -> Iterator[list[Query]]:
    """The queries, up to `size` at a time."""
    rest = iter(queries)
    while batch := list(islice(rest, size)):
        yield batch


def batch_of(queries: Sequence[Query], tell: Callable[[int, Answer], object]) -> Batch:
    """The queries as a batch. tell: see Batch."""
    request = verify_service_pb2.BatchVerifyRequest(requests=[query.to_message() for query in queries])
    return Batch(request, max(query.cost for query in queries), tell)


def keep_all(cache: DecisionCache, life: int, queries: Sequence[Query], answers: Sequence[Answer]) -> None:
    """Keep what was decided. life: see DecisionCache.begin."""
    for query, answer in zip(queries, answers, strict=True):
        if isinstance(answer, Verification):
            cache.keep(life, query, answer)


def unknown(queries: Sequence[Query], known: Sequence[Verification | None]) -> list[Query]:
    """The queries that must be asked."""
    return [query for query, answer in zip(queries, known, strict=True) if answer is None]


def completed(known: Sequence[Verification | None], told: Sequence[Answer]) -> list[Answer]:
    """All answers in their order, those that are not known taken from what was told."""
    rest = iter(told)
    return [next(rest) if answer is None else answer for answer in known]
