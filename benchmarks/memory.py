"""Row memory: very many records cached, of even more keys in the database."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import grpc

from benchmarks.hot import verify_subject
from benchmarks.house import Bench, warm
from benchmarks.machine import resident_bytes
from benchmarks.measure import BATCH_PATH, in_turn
from benchmarks.report import Figure
from latchgate.v1.verify_service_pb2 import BatchVerifyRequest, BatchVerifyResponse
from latchgate_server.core import key_format
from tests.support.server import ServerProcess

_REACH_BYTES = 1_500
_BATCH = 1_000
_FEW = 1_000


def run(bench: Bench, _wanted: Collection[str]) -> Sequence[Figure]:
    """Memory for each record, and what a hot call costs among many and among few."""
    options = bench.options
    many = bench.further_keys(options.more_keys)[: options.cached]
    few = bench.hot_bodies[:_FEW]
    requests = [bench.ask(credential.key_string) for credential in bench.hot[:_FEW]]
    with bench.server("native") as alone, bench.server("native") as full:
        for server in (alone, full):
            warm(server, requests)
        before = resident_bytes(full.pid)
        bench.progress(f"loading {len(many):,} records")
        _load(full, bench, many)
        each = (resident_bytes(full.pid) - before) / len(many)
        subjects = [verify_subject(server, name, few) for name, server in (("few", alone), ("many", full))]
        costs = in_turn(subjects, options.rounds, options.seconds, bench.progress)
    ratio = costs["few"].cpu / costs["many"].cpu
    beside = f"{len(many):,} records, of {options.more_keys:,} keys in the database"
    return [
        Figure("memory", "a record", each, "bytes", "at most 1,500", each <= _REACH_BYTES, beside),
        Figure(
            "memory",
            f"rate of Verify, in that with {len(requests):,} records",
            ratio,
            "",
            "within 10%",
            ratio >= 0.9,
            f"{costs['few'].microseconds:.1f} and {costs['many'].microseconds:.1f} µs CPU a call",
        ),
    ]


def _load(server: ServerProcess, bench: Bench, key_ids: Sequence[str]) -> None:
    """Have the server read the keys: with wrong secrets, of which Argon2 need not be asked."""
    with grpc.insecure_channel(server.verify_address) as channel:
        batch: Any = channel.unary_unary(
            BATCH_PATH,
            request_serializer=BatchVerifyRequest.SerializeToString,
            response_deserializer=BatchVerifyResponse.FromString,
        )
        for start in range(0, len(key_ids), _BATCH):
            wrong = [
                bench.ask(f"{key_id}.{key_format.render_secret(key_id, bytes(32))}")
                for key_id in key_ids[start : start + _BATCH]
            ]
            batch(BatchVerifyRequest(requests=wrong), timeout=60)
