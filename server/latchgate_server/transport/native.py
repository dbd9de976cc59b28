"""The native server, with four things that the library does not do.

- A call that can be answered at once is, where it is taken up: no task, no context, and the answers to calls that came
  together leave together, so that the threads which write them wake up once.
- A call that waited too long for its turn is refused (admission.py), and so is one that would have to wait for
  something while too many others do. So calls that can be answered at once come before all others.
- Calls that have to wait for something are begun a few at a time, and what can be answered at once comes in between.
- Answers are written before connections are closed.

It overrides methods that the library keeps to itself, so its version is pinned to 0.5 in server/pyproject.toml.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, cast

import grpc
import pygrpc_native.aio
from google.protobuf.message import DecodeError
from pygrpc_native import NativeGrpcFront

from latchgate_server import observability, tracing
from latchgate_server.core.errors import Overloaded
from latchgate_server.core.ports import Clock
from latchgate_server.counting import PlainHistogram
from latchgate_server.transport.admission import Admission
from latchgate_server.transport.caller_key import Metadata
from latchgate_server.transport.errors import status_of

AtOnce = Callable[[bytes, Metadata, str], bytes | None]
"""Takes a serialised request, its metadata and gRPC's name for the peer.

Gives the serialised response, or None where that would have to wait for something, or is for the handler to tell.
"""

Refusal = Callable[[], bytes]
"""Gives a serialised response that refuses."""

EVENTS: Final = 256
"""Calls taken up in one go."""
FEW: Final = 64
"""Calls that are no queue: they are served however long they waited, as after a pause of the whole process."""
CALLS_AT_ONCE: Final = 4_096
"""Calls whose handlers run or wait, such as for the database."""

BEGUN_AT_ONCE: Final = 4
"""Calls whose handlers are begun in one turn of the event loop: a fraction of a millisecond's worth."""

_WRITING_SECONDS: Final = 0.2
# A process decides on one processor; a second thread for its network wakes up more often than it helps.
_IO_THREADS: Final = 1
_REFUSAL: Final = status_of(Overloaded("more is asked of this server than it can do", retry_after=1.0))


class NativeServer(pygrpc_native.aio.Server):
    """See the top of this file."""

    def __init__(self, clock: Clock, options: Sequence[tuple[str, Any]]) -> None:
        super().__init__(options=options, io_threads=_IO_THREADS)
        self._clock = clock
        self._is_traced = tracing.is_on()
        self._admission = Admission()
        self._arrived = 0  # counted by the thread that waits for events alone
        self._taken_up = 0  # counted by the event loop's alone
        self._to_begin: deque[tuple[float, tuple[Any, ...]]] = deque()
        self._answers: Mapping[str, AtOnce] = {}
        self._refusals: Mapping[str, Refusal] = {}
        self._always: Collection[str] = ()
        self._at_once: Mapping[int, tuple[AtOnce, PlainHistogram]] = {}
        self._refusable: Mapping[int, Refusal | None] = {}

    def answer_at_once(self, answers: Mapping[str, AtOnce], refusals: Mapping[str, Refusal]) -> None:
        """Answer these methods without their handlers where that is possible; before `start`.

        Both by path. refusals: for methods that are not to end in an error.
        """
        self._answers, self._refusals = answers, refusals

    def never_refuse(self, services: Collection[str]) -> None:
        """Serve these services however long their calls waited. By full name; before `start`."""
        self._always = services

    async def start(self) -> None:
        """Listen, and serve on the running event loop."""
        await super().start()
        paths = [path for path, _ in self._table]
        self._at_once = {
            number: (self._answers[path], observability.LATENCIES[path.rpartition("/")[2]])
            for number, path in enumerate(paths)
            if path in self._answers
        }
        self._refusable = {
            number: self._refusals.get(path)
            for number, path in enumerate(paths)
            if path.split("/")[1] not in self._always
        }

    async def stop(self, grace: float | None) -> None:
        """Let calls in flight finish for up to `grace` seconds, and close."""
        # The library's own threads write the answers, and its `stop` closes the connections without waiting for them.
        if self._front is not None and not self._stopping:
            waiting, self._to_begin = self._to_begin, deque()
            self._begin(waiting)  # they came before the end
            self._front = cast("NativeGrpcFront", _PatientFront(self._front))
        await super().stop(grace)

    def _dispatch(self) -> None:
        """In a thread of its own: wait for events, and have the event loop take them up."""
        front, loop = self._front, self._loop
        assert front is not None
        assert loop is not None
        while (events := front.recv_batch_details(EVENTS)) is not None:
            self._arrived += len(events)
            try:
                loop.call_soon_threadsafe(self._take_up, self._clock.monotonic(), events)
            except RuntimeError:
                front.close()  # the loop was closed without `stop`
                return

    def _take_up(self, arrived: float, events: list[tuple[Any, ...]]) -> None:
        now = self._clock.monotonic()
        waiting = self._arrived - self._taken_up
        self._taken_up += len(events)
        if waiting > FEW and not self._admission.admits(now - arrived, now):
            events = self._refuse(events)
        answered, others = self._answer(events)
        front = self._front
        assert front is not None
        for call_id, response, _ in answered:
            front.respond(call_id, response)
        if answered:
            self._note_latencies([latency for _, _, latency in answered], self._clock.monotonic() - arrived)
        if others and len(self._calls) + len(self._to_begin) + len(others) > CALLS_AT_ONCE:
            others = self._refuse(others)
        if others:
            if not self._to_begin:
                self._begin_soon()
            self._to_begin.extend((arrived, event) for event in others)

    def _begin_soon(self) -> None:
        loop = self._loop
        assert loop is not None
        loop.call_soon(self._begin_some)

    def _begin_some(self) -> None:
        """Begin the handlers of a few calls, in the order in which they came, and come back for the next.

        A thousand that are begun together would hold up the event loop, and with it what memory can answer.
        """
        waiting = self._to_begin
        self._begin([waiting.popleft() for _ in range(min(len(waiting), BEGUN_AT_ONCE))])
        if waiting:
            self._begin_soon()

    def _begin(self, arrivals: Iterable[tuple[float, tuple[Any, ...]]]) -> None:
        now = self._clock.monotonic()
        self._on_events([_after(now - arrived, event) for arrived, event in arrivals])

    def _note_latencies(self, latencies: list[PlainHistogram], seconds: float) -> None:
        """They came together and left together: one look at the clock serves them all."""
        first = latencies[0]
        alike = latencies.count(first)
        first.observe(seconds, alike)
        if alike < len(latencies):
            for latency in latencies:
                if latency is not first:
                    latency.observe(seconds)

    def _answer(
        self, events: list[tuple[Any, ...]]
    ) -> tuple[list[tuple[int, bytes, PlainHistogram]], list[tuple[Any, ...]]]:
        """The answers that can be given at once, each with where to note its latency, and the other calls."""
        answered, others = [], []
        at_once, longest, is_traced = self._at_once, self._receive_limit, self._is_traced
        assert longest is not None
        for event in events:
            _, call_id, method_id, payload, _, details = event
            known = None if payload is None or len(payload) > longest else at_once.get(method_id)
            # A call of a trace goes to its handler, which makes a span.
            if known is None or (is_traced and tracing.is_followed(details[0])):
                others.append(event)
                continue
            answer, latency = known
            response = answer(payload, details[0], details[1])
            if response is None:
                others.append(event)
            else:
                answered.append((call_id, response, latency))
        return answered, others

    def _request(self, call: Any, payload: bytes) -> tuple[bool, Any]:
        """The request, or the end of a call whose message is too long or does not parse: told as grpcio tells it."""
        parse = call.handler.request_deserializer
        if parse is None or (self._receive_limit is not None and len(payload) > self._receive_limit):
            return super()._request(call, payload)
        try:
            return True, parse(payload)
        except DecodeError as error:
            assert self._front is not None
            self._front.fail(call.call_id, grpc.StatusCode.UNKNOWN.value[0], f"Unexpected {type(error)}: {error}")
            return False, None

    def _refuse(self, events: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Refuse the calls among the events that may be, and return the others."""
        front = self._front
        assert front is not None
        code, message, metadata = _REFUSAL
        others = []
        refused = 0
        for event in events:
            _, call_id, method_id, payload, _, _ = event
            if payload is None or method_id not in self._refusable:
                others.append(event)
                continue
            refused += 1
            if (refusal := self._refusable[method_id]) is not None:
                front.respond(call_id, refusal())
            else:
                front.fail(call_id, code.value[0], message, metadata)
        observability.UNDECIDED.labels(code.name).inc(refused)
        return others


def _after(seconds: float, event: tuple[Any, ...]) -> tuple[Any, ...]:
    """The event of a call that has waited so long: as much less is left until its deadline."""
    *others, details = event
    if details is None or details[2] is None:
        return event
    metadata, peer, remaining = details
    return (*others, (metadata, peer, remaining - seconds))


class _PatientFront:
    def __init__(self, front: Any) -> None:
        self._front = front

    def __getattr__(self, name: str) -> Any:
        return getattr(self._front, name)

    def close(self) -> None:
        """Called in a thread of its own, not on the event loop."""
        threading.Event().wait(_WRITING_SECONDS)
        self._front.close()
