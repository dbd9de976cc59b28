"""Batches: queries that travel together, and their answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from latchgate.errors import CallFailed, batch_entry_failed
from latchgate.results import Query, Verification, verification_from
from latchgate.v1 import verify_service_pb2

BATCH_SIZE = 1_000
"""How many queries the server takes at once."""


def batches_of(queries: Iterable[Query], size: int) -> Iterator[tuple[verify_service_pb2.BatchVerifyRequest, int]]:
    """The queries as requests of up to `size`, each with the largest cost in it."""
    rest = iter(queries)
    while batch := list(islice(rest, size)):
        requests = [query.to_message() for query in batch]
        yield verify_service_pb2.BatchVerifyRequest(requests=requests), max(query.cost for query in batch)


def answers_from(response: verify_service_pb2.BatchVerifyResponse) -> list[Verification | CallFailed]:
    """The answer for each request, in their order."""
    errors = response.errors
    return [
        batch_entry_failed(errors[place].code, errors[place].message) if place in errors else verification_from(one)
        for place, one in enumerate(response.responses)
    ]
