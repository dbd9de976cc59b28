"""Row client: what a decision costs that a client answers from its own cache, of hot keys without limits."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Collection, Sequence

from benchmarks.house import ADDRESS, PERMISSIONS, TENANT, Bench
from benchmarks.measure import WrongAnswers
from benchmarks.report import Figure
from benchmarks.seed import copy_key
from latchgate import AsyncClient, CacheInfo, Client, Query, Verification
from latchgate.v1 import admin_service_pb2, key_pb2
from tests.support.server import Admin

_KEYS = 1_000
_STRETCH = 1_000
_REACH_MICROSECONDS = 10.0
_REACH_RATE = 150_000
_PATIENCE_SECONDS = 60.0


def run(bench: Bench, _wanted: Collection[str]) -> Sequence[Figure]:
    """Ask the same questions again and again, each key in its turn; the server's stream goes on meanwhile."""
    count = min(_KEYS, len(bench.hot))
    with bench.server("native") as server:
        admin = Admin(server.admin_address, bench.root_key)
        template = bench.create_key(admin, role_ids=["reader", "exporter"], limits=[])
        watcher = key_pb2.Key(tenant_id="latchgate", permissions=["latchgate.watch"])
        caller = admin.CreateKey(admin_service_pb2.CreateKeyRequest(key=watcher)).key_string
        admin.close()
        keys = [
            credential.key_string for credential in asyncio.run(copy_key(bench.database_url, template.key_id, count))
        ]
        bench.progress(f"answering {len(keys):,} keys from a client's cache")
        blocking = _blocking(server.verify_address, caller, keys, bench.options.seconds)
        awaiting = asyncio.run(_awaiting(server.verify_address, caller, keys, bench.options.seconds))
    figures = []
    for name, took in (("Client", blocking), ("AsyncClient", awaiting)):
        cost = 1e6 * statistics.median(took)
        rate = 1e6 / cost
        figures += [
            Figure("client", f"a hit of {name}", cost, "µs CPU", "10", cost < _REACH_MICROSECONDS),
            Figure("client", f"decisions of {name}, a core", rate, "/s", "150,000", rate >= _REACH_RATE),
        ]
    return figures


def _blocking(address: str, caller: str, keys: Sequence[str], seconds: float) -> Sequence[float]:
    with Client(address, key=caller, cache=True, timeout=_PATIENCE_SECONDS) as client:
        ends_at = time.perf_counter() + _PATIENCE_SECONDS
        while not _is_warm(client.cache_info(), len(keys)) and time.perf_counter() < ends_at:
            client.verify_many(_queries(keys))
            time.sleep(0.05)
        cycle, took = itertools.cycle(keys), []
        ends_at = time.perf_counter() + seconds
        while time.perf_counter() < ends_at:
            some = list(itertools.islice(cycle, _STRETCH))
            began = time.thread_time()
            answers = [client.verify(key, requires=PERMISSIONS, client_ip=ADDRESS) for key in some]
            took.append((time.thread_time() - began) / len(some))
            _check(answers, some)
        _require_hits(client.cache_info(), len(took))
    return took


async def _awaiting(address: str, caller: str, keys: Sequence[str], seconds: float) -> Sequence[float]:
    async with AsyncClient(address, key=caller, cache=True, timeout=_PATIENCE_SECONDS) as client:
        ends_at = time.perf_counter() + _PATIENCE_SECONDS
        while not _is_warm(client.cache_info(), len(keys)) and time.perf_counter() < ends_at:
            await client.verify_many(_queries(keys))
            await asyncio.sleep(0.05)
        cycle, took = itertools.cycle(keys), []
        ends_at = time.perf_counter() + seconds
        while time.perf_counter() < ends_at:
            some = list(itertools.islice(cycle, _STRETCH))
            began = time.thread_time()
            answers = [await client.verify(key, requires=PERMISSIONS, client_ip=ADDRESS) for key in some]
            took.append((time.thread_time() - began) / len(some))
            _check(answers, some)
            await asyncio.sleep(0)  # the stream wants its turn, as in any program
        _require_hits(client.cache_info(), len(took))
    return took


def _is_warm(info: CacheInfo, count: int) -> bool:
    return info.entries >= count


def _queries(keys: Sequence[str]) -> Sequence[Query]:
    return [Query(key=key, requires=PERMISSIONS, client_ip=ADDRESS) for key in keys]


def _check(answers: Sequence[Verification], keys: Sequence[str]) -> None:
    for answer, key in zip(answers, keys, strict=True):
        identity = answer.identity
        if not answer.allowed or identity is None or identity.tenant != TENANT or not key.startswith(identity.key_id):
            raise WrongAnswers(f"a hot key was not allowed: {answer}")


def _require_hits(info: CacheInfo, stretches: int) -> None:
    """Nearly all of what was measured must have come from the cache: else it measured something else."""
    if info.hits < stretches * _STRETCH * 0.95:
        raise WrongAnswers(f"not from the cache: {info}")
