"""Servers of different versions on one database, and clients of all of them whose every call is judged."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import grpc

from latchgate.v1.decision_pb2 import DECISION_ALLOW, DenialReason
from latchgate.v1.verify_service_pb2 import VerifyRequest, VerifyResponse
from latchgate.v1.verify_service_pb2_grpc import VerifyServiceStub
from tests.conformance.house import House
from tests.support.server import Admin, ServerProcess, Verify
from tests.support.waiting import wait_until

ALLOW = "ALLOW"
REQUIRED = "orders.read"
"""What every verification asks for."""
_PAUSE_SECONDS = 0.01
_CALLERS = 2
_DECISIONS = "latchgate_decisions_total"


def said(response: VerifyResponse) -> str:
    """ALLOW, or the reason of a denial."""
    if response.decision == DECISION_ALLOW:
        return ALLOW
    return DenialReason.Name(response.denial_reason).removeprefix("DENIAL_REASON_")


class Member:
    """A server, and what its administrators and callers use."""

    def __init__(self, process: ServerProcess, root_key: str) -> None:
        self.process = process
        self._root_key = root_key
        self._open()

    def _open(self) -> None:
        self.root = Admin(self.process.admin_address, self._root_key)
        self.house = House(self.root)
        self.verify = Verify(self.process.verify_address)

    def says(self, key: str) -> str:
        """What it decides about the key."""
        return said(self.verify(key, required_permissions=REQUIRED))

    def allowed(self, key: str, most: int) -> int:
        """How many of so many calls it allows, until the first that it does not."""
        return next((count for count in range(most) if self.says(key) != ALLOW), most)

    def decided(self) -> float:
        """How often it has decided since it started."""
        return sum(value for name, value in self.process.metrics().items() if name.startswith(_DECISIONS))

    def stop(self) -> None:
        """End it in good order."""
        self.root.close()
        self.verify.close()
        assert self.process.stop() == 0, "".join(self.process.log[-20:])

    def restart(self) -> None:
        """End it in good order, and start it again."""
        self.stop()
        self.process.start()
        self._open()

    @contextmanager
    def standing_still(self, hot: str) -> Iterator[None]:
        """Have it do nothing meanwhile. Afterwards it is waited for: that it allows this key again."""
        self.process.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.signal(signal.SIGCONT)
        wait_until(lambda: self.says_or_fails(hot) == ALLOW)

    def says_or_fails(self, key: str) -> str:
        """The same, or how the call failed: whoever stood still decides nothing until it has its lease again."""
        try:
            return self.says(key)
        except grpc.RpcError as error:
            return str(error)


@contextmanager
def serving(process: ServerProcess, root_key: str) -> Iterator[Member]:
    """A server that is started, and ended unless it was before."""
    with process:
        member = Member(process, root_key)
        yield member
        member.stop()


class Load:
    """Verifications without end by clients that know every address, present or not, in turn.

    expected: by key string, what is to be said of it. ends: how often that was said; and whatever else was.
    """

    def __init__(self, addresses: Sequence[str], expected: Mapping[str, str]) -> None:
        self._expected = list(expected.items())
        self.ends: Counter[str] = Counter()
        self._stopped = threading.Event()
        self._turns = [threading.Lock() for _ in range(_CALLERS)]
        # A server that was away is looked for again soon.
        options = [
            ("grpc.default_authority", "latchgate.test"),
            ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 200),
        ]
        self._channel = grpc.insecure_channel("ipv4:" + ",".join(addresses), options)
        self._threads = [threading.Thread(target=self._call, args=(turn,)) for turn in self._turns]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Make no more calls."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        self._channel.close()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No call is under way meanwhile."""
        with ExitStack() as turns:
            for turn in self._turns:
                turns.enter_context(turn)
            yield

    def must_reach(self, *members: Member, calls: int = 30) -> None:
        """Wait until each of these has decided so many times more."""
        for member in members:
            goal = member.decided() + calls
            wait_until(partial(_has_decided, member, goal), otherwise=f"only {dict(self.ends)}")

    def _call(self, turn: threading.Lock) -> None:
        stub = VerifyServiceStub(self._channel)
        number = 0
        while not self._stopped.is_set():
            key, expected = self._expected[number % len(self._expected)]
            number += 1
            with turn:
                try:
                    end = said(stub.Verify(VerifyRequest(key=key, required_permissions=REQUIRED), timeout=20))
                except grpc.RpcError as error:
                    end = str(error)
                self.ends["as expected" if end == expected else f"{end} in place of {expected}"] += 1
            time.sleep(_PAUSE_SECONDS)


def _has_decided(member: Member, times: float) -> bool:
    return member.decided() >= times
