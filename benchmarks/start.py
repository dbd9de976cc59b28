"""Row start: from `latchgate dev` to SERVING, on its second start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.house import Bench
from benchmarks.measure import WrongAnswers
from benchmarks.report import Figure
from tests.support.ports import free_port

_REACH_SECONDS = 1.5
_STARTS = 3
_PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.005


def run(bench: Bench, _wanted: Collection[str]) -> Sequence[Figure]:
    """Start it once to make its folder, and then again: the median of several starts."""
    folder = bench.folder / "dev"
    first = _start(folder)
    later = [_start(folder) for _ in range(_STARTS)]
    seconds = sorted(later)[len(later) // 2]
    beside = f"{first:.1f} s the first time; wall clock"
    return [Figure("start", "`latchgate dev`, second start", seconds, "s", "1.5", seconds <= _REACH_SECONDS, beside)]


def _start(folder: Path) -> float:
    address = f"127.0.0.1:{free_port()}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LATCHGATE_")} | {
        "LATCHGATE_VERIFY_LISTEN": address,
        "LATCHGATE_ADMIN_LISTEN": f"127.0.0.1:{free_port()}",
        "LATCHGATE_METRICS_LISTEN": "",
    }
    command = [sys.executable, "-m", "latchgate_server", "dev", "--data-dir", str(folder)]
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(address, began)
        return time.perf_counter() - began
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(_PATIENCE_SECONDS)


def _wait(address: str, began: float) -> None:
    serving = health_pb2.HealthCheckResponse.SERVING
    while time.perf_counter() - began < _PATIENCE_SECONDS:
        # A channel that was refused waits before it tries again, so each try has its own.
        with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            try:
                if health.Check(health_pb2.HealthCheckRequest(), timeout=1).status == serving:
                    return
            except grpc.RpcError:
                time.sleep(_POLL_SECONDS)
    raise WrongAnswers("`latchgate dev` does not serve")
