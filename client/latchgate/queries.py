"""Batches: queries that travel together, and their answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from latchgate.cache import DecisionCache
from latchgate.errors import CallFailed, batch_entry_failed
from latchgate.results import Query, Verification, verification_from
from latchgate.v1 import verify_service_pb2

BATCH_SIZE = 1_000
"""How many queries the server takes at once."""


def batches_of(queries: Iterable[Query], size: int) -> Iterator[list[Query]]:
    """The queries, up to `size` at a time."""
    rest = iter(queries)
    while batch := list(islice(rest, size)):
        yield batch


def request_of(batch: Sequence[Query]) -> tuple[verify_service_pb2.BatchVerifyRequest, int]:
    """The queries as a request, and the largest cost in it."""
    requests = [query.to_message() for query in batch]
    return verify_service_pb2.BatchVerifyRequest(requests=requests), max(query.cost for query in batch)


def answers_from(response: verify_service_pb2.BatchVerifyResponse) -> list[Verification | CallFailed]:
    """The answer for each request, in their order."""
    errors = response.errors
    return [
        batch_entry_failed(errors[place].code, errors[place].message) if place in errors else verification_from(one)
        for place, one in enumerate(response.responses)
    ]


def keep_all(
    cache: DecisionCache, life: int, queries: Sequence[Query], answers: Sequence[Verification | CallFailed]
) -> None:
    """Keep what was decided. life: see DecisionCache.begin."""
    for query, answer in zip(queries, answers, strict=True):
        if isinstance(answer, Verification):
            cache.keep(life, query, answer)


def unknown(queries: Sequence[Query], known: Sequence[Verification | None]) -> list[Query]:
    """The queries that must be asked."""
    return [query for query, answer in zip(queries, known, strict=True) if answer is None]


def completed(
    known: Sequence[Verification | None], told: Sequence[Verification | CallFailed]
) -> list[Verification | CallFailed]:
    """All answers in their order, those that are not known taken from what was told."""
    rest = iter(told)
    return [next(rest) if answer is None else answer for answer in known]
