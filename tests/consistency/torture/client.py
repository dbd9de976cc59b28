"""A process that verifies keys in a loop, several calls in flight at each replica, and tells of every answer."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
import struct
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import grpc

from latchgate.v1 import decision_pb2
from latchgate.v1.verify_service_pb2 import VerifyRequest, VerifyResponse
from tests.consistency.torture.judge import ALLOW, ERROR, Decision

METHOD = "/latchgate.v1.VerifyService/Verify"
PERMISSION = "orders.read"
"""What every call requires."""
DEADLINE_SECONDS = 10.0
"""Longer than any pause: what a replica answers when it wakes is what matters most."""
CHANNEL_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_retries", 0),
)
_REPORT_SECONDS = 0.05
PAUSE_AFTER_ERROR = 0.05
_RECORD = struct.Struct("<IBBdd")
_NICENESS = 10  # clients have what is left of the machine: real ones would be on machines of their own
_HOT_KEYS = 8  # half of the calls go to the keys that were touched last


@dataclass(frozen=True, slots=True)
class UseKey:
    """Tells a client to verify a key, or that something is about to happen to it. request: a VerifyRequest."""

    number: int
    request: bytes


@dataclass(frozen=True, slots=True)
class DropKey:
    """Tells a client to leave a key alone."""

    number: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Tells a client to end."""


def request_for(key_string: str) -> bytes:
    """The request by which a key is verified."""
    return VerifyRequest(key=key_string, required_permissions=PERMISSION).SerializeToString()


class ClientProcess:
    """A client, seen from the process that started it."""

    def __init__(self, main: Callable[..., None], *arguments: Any) -> None:
        """main: what the process runs; takes its end of the connection, and the arguments."""
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=main, args=(theirs, *arguments), daemon=True)
        self._process.start()
        theirs.close()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; one that has ended is no matter."""
        if self._process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def send(self, message: UseKey | DropKey | Stop) -> None:
        """Tell it something."""
        with suppress(BrokenPipeError):
            self.connection.send(message)

    def decisions(self) -> Iterator[Decision]:
        """What it has told since; nothing where it has not. Raises EOFError once it has ended."""
        while self.connection.poll():
            for number, replica, outcome, start, end in _RECORD.iter_unpack(self.connection.recv_bytes()):
                yield Decision(number, replica, start, end, outcome)

    def stop(self) -> None:
        """End it."""
        self.send(Stop())
        self._process.join(3)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()
        self.connection.close()


def verify_everywhere(connection: Connection, addresses: Sequence[str], in_flight: int, seed: int) -> None:
    """What a client without a cache runs."""
    run_in_process(_Client(connection, random.Random(seed)).run(addresses, in_flight))


def run_in_process(work: Coroutine[Any, Any, None]) -> None:
    """Run a client's work in a process of its own."""
    os.nice(_NICENESS)
    with suppress(KeyboardInterrupt):
        asyncio.run(work)


class KeyUser:
    """Uses the keys that it is told of, the latest more than others, and tells of every answer."""

    def __init__(self, connection: Connection, choices: random.Random) -> None:
        self._connection = connection
        self._random = choices
        self._requests: dict[int, bytes] = {}
        self._numbers: list[int] = []
        self._hot: deque[int] = deque(maxlen=_HOT_KEYS)
        self._records = bytearray()
        self._stopping = asyncio.Event()

    async def work(self, lanes: Sequence[Coroutine[Any, Any, None]]) -> None:
        """Run the lanes until told to stop."""
        asyncio.get_running_loop().add_reader(self._connection.fileno(), self._listen)
        tasks = [asyncio.create_task(work) for work in (*lanes, self._report())]
        await self._stopping.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def next_key(self) -> tuple[int, bytes]:
        """The number of a key to use now, and its request."""
        while not self._numbers:
            await asyncio.sleep(PAUSE_AFTER_ERROR)
        number = self._random.choice(self._hot if self._hot and self._random.random() < 0.5 else self._numbers)
        return number, self._requests[number]

    def note(self, number: int, replica: int, outcome: int, start: float) -> None:
        """Tell of an answer that came just now."""
        self._records += _RECORD.pack(number, replica, outcome, start, time.monotonic())

    def _listen(self) -> None:
        try:
            message = self._connection.recv()
        except EOFError:
            message = Stop()
        match message:
            case UseKey(number, request):
                self._requests[number] = request
                self._hot.append(number)
            case DropKey(number):
                self._requests.pop(number, None)
                self._hot = deque((hot for hot in self._hot if hot != number), maxlen=_HOT_KEYS)
            case Stop():
                asyncio.get_running_loop().remove_reader(self._connection.fileno())
                self._stopping.set()
        self._numbers = list(self._requests)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_SECONDS)
            if self._records:
                records, self._records = self._records, bytearray()
                self._connection.send_bytes(records)


class _Client(KeyUser):
    async def run(self, addresses: Sequence[str], in_flight: int) -> None:
        channels = [grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) for address in addresses]
        verifiers = [Verifier(channel) for channel in channels]
        await self.work(
            [
                self._verify_in_a_loop(replica, verifier)
                for replica, verifier in enumerate(verifiers)
                for _ in range(in_flight)
            ]
        )
        await asyncio.gather(*(channel.close() for channel in channels))

    async def _verify_in_a_loop(self, replica: int, verifier: Verifier) -> None:
        while True:
            number, request = await self.next_key()
            start = time.monotonic()
            outcome = await verifier.verify(request)
            self.note(number, replica, outcome, start)
            if outcome >= ERROR:
                await asyncio.sleep(PAUSE_AFTER_ERROR)


class Verifier:
    """Verify over a channel, its answers as outcomes."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._call: grpc.aio.UnaryUnaryMultiCallable[bytes, VerifyResponse] = channel.unary_unary(
            METHOD, response_deserializer=VerifyResponse.FromString
        )

    async def verify(self, request: bytes) -> int:
        """The outcome of one call."""
        try:
            response = await self._call(request, timeout=DEADLINE_SECONDS)
        except grpc.aio.AioRpcError as error:
            return ERROR + int(error.code().value[0])
        return ALLOW if response.decision == decision_pb2.DECISION_ALLOW else int(response.denial_reason)
