"""Somebody who has done nothing wrong and wants to be served meanwhile, and what the server takes of the machine."""

from __future__ import annotations

import statistics
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import grpc

from latchgate.v1.decision_pb2 import DECISION_ALLOW as ALLOW
from tests.conformance.wire import refusal_of
from tests.support.server import ServerProcess, Verify

_PAUSE_SECONDS = 0.01
_TRIES = 10
_RESET = "CANCELLED"
"""What gRPC's client calls a reset, by which grpcio refuses calls where too many wait."""
_RESET_PAUSE_SECONDS = 0.1


@dataclass
class Bystander:
    """Verifies a key again and again, in a thread, while the context lasts. Also looks at the server's memory.

    took: seconds of each call. failed: what went wrong instead. resets: calls that grpcio refused.
    most: the most memory that the server had, in MiB.
    """

    server: ServerProcess
    key: str
    took: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    most: float = 0.0
    resets: int = 0

    def __enter__(self) -> Bystander:
        self._verify = Verify(self.server.verify_address, credentials=self.server.credentials)
        self.ask()
        self.before = self.most = memory(self.server.pid)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()
        self._verify.close()

    @property
    def grown(self) -> float:
        """By how many MiB the server's memory grew at most."""
        return self.most - self.before

    @property
    def longest(self) -> float:
        """How long the slowest call took, in seconds."""
        return max(self.took, default=0.0)

    @property
    def median(self) -> float:
        """How long a call took, in seconds."""
        return statistics.median(self.took) if self.took else 0.0

    def ask(self) -> None:
        """Ask, and where the server has too much to do, again when it said to, as clients do."""
        began = time.monotonic()
        for _ in range(_TRIES):
            try:
                decision = self._verify(self.key).decision
            except grpc.RpcError as error:
                told = refusal_of(error)
                if told.message == _RESET:
                    self.resets += 1
                elif told.retry_after is None:
                    return self.failed.append(f"{told.code.name}: {told.message}")
                time.sleep(told.retry_after or _RESET_PAUSE_SECONDS)
            else:
                self.took.append(time.monotonic() - began)
                return None if decision == ALLOW else self.failed.append(f"decision {decision}")
        return self.failed.append(f"refused {_TRIES} times")

    def _run(self) -> None:
        while not self._stopping.wait(_PAUSE_SECONDS):
            self.ask()
            self.most = max(self.most, memory(self.server.pid))


def memory(pid: int) -> float:
    """What a process has in memory, in MiB. Asks Linux."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * 4_096 / 2**20
