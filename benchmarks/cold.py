"""Row cold: thousands of keys at once right after a restart, while hot ones go on."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
from collections.abc import Collection, Sequence

import grpc

from benchmarks.house import Bench, warm
from benchmarks.load import Call, Load, Shape, framed
from benchmarks.machine import cpu_seconds
from benchmarks.measure import VERIFY_PATH, WrongAnswers
from benchmarks.report import Figure
from latchgate.v1 import decision_pb2
from latchgate.v1.verify_service_pb2 import VerifyRequest, VerifyResponse
from tests.support.server import ServerProcess

_REACH_MILLISECONDS = 1.5
_HOT_KEYS = 100
_HOT_RATE = 200.0
_AT_ONCE = 64
_USUAL_SECONDS = 5.0
_COLD_SECONDS = 60.0


def run(bench: Bench, _wanted: Collection[str]) -> Sequence[Figure]:
    """Verify every key but a few for the first time, each in a call of its own; those few are hot meanwhile."""
    hot, cold = bench.hot[: _hot_keys(bench)], bench.hot[_hot_keys(bench) :]
    bodies = [framed(bench.ask(credential.key_string)) for credential in hot]
    with bench.server("native") as server:
        warm(server, [bench.ask(credential.key_string) for credential in hot])
        bench.progress("hot keys alone")
        usual = _p99(_hot_calls(server, bodies, _USUAL_SECONDS))
        bench.progress(f"{len(cold):,} cold keys")
        shape = Shape(1, 8, _HOT_RATE)
        with Load(server.verify_address, VERIFY_PATH, bodies, _COLD_SECONDS, shape, with_calls=True) as load:
            before = cpu_seconds([server.pid])
            seconds = _first_calls(server, [credential.key_string for credential in cold])
            spent = cpu_seconds([server.pid]) - before
            calls = load.calls_so_far()
    meanwhile = _p99(calls)
    each = spent / len(cold) * 1_000
    # What the hot calls cost is in it: a hundredth of it.
    beside = f"{len(cold):,} keys in {seconds:.1f} s"
    return [
        Figure("cold", "a key's first call", each, "ms CPU", "at most 1.5", each <= _REACH_MILLISECONDS, beside),
        Figure(
            "cold",
            "p99 of hot calls meanwhile, in what is usual",
            meanwhile / usual,
            "",
            "at most 2",
            meanwhile <= 2 * usual,
            f"{usual * 1e3:.1f} ms usually, {meanwhile * 1e3:.1f} ms then; wall clock",
        ),
    ]


def _hot_keys(bench: Bench) -> int:
    return min(_HOT_KEYS, len(bench.hot) // 2)


def _hot_calls(server: ServerProcess, bodies: Sequence[bytes], seconds: float) -> Sequence[Call]:
    shape = Shape(1, 8, _HOT_RATE)
    with Load(server.verify_address, VERIFY_PATH, bodies, seconds, shape, with_calls=True) as load:
        return load.outcome().calls


def _p99(calls: Sequence[Call]) -> float:
    return statistics.quantiles([call.took for call in calls], n=100, method="inclusive")[98]


def _first_calls(server: ServerProcess, keys: Sequence[str]) -> float:
    """Verify each key once, from a process of its own, and return how long that took. Raises WrongAnswers."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cold", server.verify_address],
        input="\n".join(keys),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise WrongAnswers(done.stderr)
    return float(done.stdout)


async def _verify_all(address: str, keys: Sequence[str]) -> float:
    places = asyncio.Semaphore(_AT_ONCE)
    async with grpc.aio.insecure_channel(address) as channel:
        method = channel.unary_unary(
            VERIFY_PATH,
            request_serializer=VerifyRequest.SerializeToString,
            response_deserializer=VerifyResponse.FromString,
        )

        async def verify(key: str) -> None:
            async with places:
                request = VerifyRequest(key=key, client_ip="203.0.113.7", required_permissions="orders.read")
                answer = await method(request, timeout=60)
            if answer.decision != decision_pb2.DECISION_ALLOW:
                raise WrongAnswers(f"a cold key was not allowed: {answer}")

        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.gather(*map(verify, keys))
        return loop.time() - began


if __name__ == "__main__":
    print(asyncio.run(_verify_all(sys.argv[1], sys.stdin.read().split())))  # noqa: T201 - whoever started it reads it
