"""The stream by which a client's cache hears what to drop, and is granted its leases: blocking, and for asyncio.

Leases are renewed while somebody asks the cache. One that nobody asks lets its lease run out, so that it costs the
server nothing and no change waits for it; the next call asks the server, and has the lease renewed.

A stream on which an answer is overdue is ended, and another one opened, by the next call that the cache cannot answer:
after five lease lengths, 5 s at least (`DecisionCache.overdue`). The connection may be well and the stream still dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import random
import threading
from collections.abc import Iterator
from typing import Any

import grpc

from latchgate.cache import DecisionCache
from latchgate.errors import CallFailed, NotAuthenticated, PermissionDenied, Unavailable, call_failed
from latchgate.v1 import verify_service_pb2

_CLOSE_SECONDS = 1.0
_IDLE_SECONDS = 10.0  # a sign of life, well before the server takes the client for gone
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
_HOPELESS_PAUSE = 30.0

_log = logging.getLogger("latchgate")


class _Pauses:
    """How long to wait before another stream is opened."""

    def __init__(self, cache: DecisionCache) -> None:
        self._cache = cache
        self._next = _FIRST_PAUSE

    def note_success(self) -> None:
        """A stream works."""
        self._next = _FIRST_PAUSE
        self._cache.problem = ""

    def after(self, failed: CallFailed | None) -> float:
        """Seconds. failed: what the stream ended with; None: with nothing."""
        problem = str(failed or "the server has ended the stream")
        is_hopeless = isinstance(failed, NotAuthenticated | PermissionDenied)
        if is_hopeless and problem != self._cache.problem:
            _log.warning("decisions are not cached: %s", problem)
        self._cache.problem = problem
        longest, self._next = self._next, min(_LONGEST_PAUSE, self._next * 2)
        return random.uniform(longest / 2, _HOPELESS_PAUSE if is_hopeless else longest)  # noqa: S311 - it spreads clients


def _unanswered(seconds: float) -> CallFailed:
    """What a stream ended with that this client has ended itself."""
    code = grpc.StatusCode.DEADLINE_EXCEEDED
    return Unavailable(code, f"the server has not answered on the stream for {seconds:.0f} s")


class Watching:
    """Keeps a stream open in a thread of its own, from the first call on that the cache could not answer."""

    def __init__(self, cache: DecisionCache, stub: Any, metadata: tuple[tuple[str, str], ...]) -> None:
        self._cache = cache
        self._stub = stub
        self._metadata = metadata
        self._starting = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._stream: _Stream | None = None

    def ensure(self) -> None:
        """See that there is a stream, or will be, and a lease. A process that was forked off opens its own."""
        stream = self._stream
        if stream is not None and stream.is_idle:
            stream.wake.set()
        if self._pid == os.getpid() or self._closing.is_set():
            if stream is not None and self._pid == os.getpid() and (overdue := self._cache.overdue):
                stream.give_up(_unanswered(overdue))
            return
        with self._starting:
            if self._pid != os.getpid():
                self._pid = os.getpid()
                self._thread = threading.Thread(target=self._run, name="latchgate-watch", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Report what was used, and end the stream."""
        self._closing.set()
        stream, thread = self._stream, self._thread
        if stream is not None:
            stream.wake.set()
        if thread is not None and self._pid == os.getpid():
            thread.join(_CLOSE_SECONDS)
            if stream is not None and thread.is_alive():
                stream.cancel()
                thread.join(_CLOSE_SECONDS)
        self._cache.restart()

    def _run(self) -> None:
        pauses = _Pauses(self._cache)
        while not self._closing.is_set():
            self._cache.restart()
            self._stream = _Stream(self._cache, self._closing)
            failed = self._stream.follow(self._stub, self._metadata, pauses)
            self._cache.restart()
            self._closing.wait(pauses.after(failed))


class _Stream:
    """One stream of a Watching."""

    def __init__(self, cache: DecisionCache, closing: threading.Event) -> None:
        self._cache = cache
        self._closing = closing
        self._has_ended = False
        self._call: Any = None
        self._given_up: CallFailed | None = None
        self.is_idle = False
        self.wake = threading.Event()

    def follow(self, stub: Any, metadata: tuple[tuple[str, str], ...], pauses: _Pauses) -> CallFailed | None:
        """Open it, and hear what comes until it ends. Returns what it ended with."""
        try:
            self._call = stub.WatchKeys(self._messages(), metadata=metadata, wait_for_ready=True)
            for message in self._call:
                if self._cache.hear(message):
                    self.wake.set()
                pauses.note_success()
        except grpc.RpcError as error:
            return self._given_up or call_failed(error)
        finally:
            self._has_ended = True
            self.wake.set()
        return None

    def cancel(self) -> None:
        """End it at once."""
        if self._call is not None:
            self._call.cancel()

    def give_up(self, why: CallFailed) -> None:
        """End it at once, and have `follow` return why."""
        self._given_up = why
        self.cancel()

    def _messages(self) -> Iterator[verify_service_pb2.WatchKeysRequest]:
        """Asked for by a thread of gRPC's, as soon as the one before is on its way."""
        while not self._has_ended:
            is_last = self._closing.is_set()
            yield self._cache.next_message()
            if is_last:
                return
            self._rest()

    def _rest(self) -> None:
        """Until there is something to say."""
        idle_for = 0.0
        while not self.wake.wait(pause := self._cache.pause) and not self._cache.is_active:
            self.is_idle = True
            idle_for += pause
            if idle_for >= _IDLE_SECONDS:
                break
        self.is_idle = False
        self.wake.clear()


class AsyncWatching:
    """The same as a task of an event loop."""

    def __init__(self, cache: DecisionCache, stub: Any, metadata: tuple[tuple[str, str], ...]) -> None:
        self._cache = cache
        self._stub = stub
        self._metadata = metadata
        self._task: asyncio.Task[None] | None = None
        self._call: Any = None
        self._given_up: CallFailed | None = None
        self._wake = asyncio.Event()
        self._is_idle = False
        self._is_closing = False

    def ensure(self) -> None:
        """See that there is a stream, or will be, and a lease."""
        if self._is_idle:
            self._wake.set()
        if self._call is not None and (overdue := self._cache.overdue):
            self._given_up = _unanswered(overdue)
            self._call.cancel()
        if self._task is None and not self._is_closing:
            # In a context of its own: it outlives the call that happens to start it.
            self._task = asyncio.get_running_loop().create_task(self._run(), context=contextvars.Context())

    async def close(self) -> None:
        """Report what was used, and end the stream."""
        self._is_closing = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=_CLOSE_SECONDS)
            self._task.cancel()
            await asyncio.wait({self._task})
        self._cache.restart()

    async def _run(self) -> None:
        pauses = _Pauses(self._cache)
        while not self._is_closing:
            self._cache.restart()
            failed = await self._follow(pauses)
            self._cache.restart()
            pause = pauses.after(failed)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    while not self._is_closing:
                        self._wake.clear()
                        await self._wake.wait()

    async def _follow(self, pauses: _Pauses) -> CallFailed | None:
        self._call = call = self._stub.WatchKeys(metadata=self._metadata, wait_for_ready=True)
        saying = asyncio.get_running_loop().create_task(self._say(call))
        try:
            async for message in call:
                if self._cache.hear(message):
                    self._wake.set()
                pauses.note_success()
        except grpc.aio.AioRpcError as error:
            return call_failed(error)
        except asyncio.CancelledError:
            # A call that is cancelled raises it in those who read from it, too; `cancelling` tells the task's own end.
            task = asyncio.current_task()
            if self._given_up is None or (task is not None and task.cancelling()):
                raise
            return self._given_up
        finally:
            self._call = self._given_up = None
            saying.cancel()
            call.cancel()
            await asyncio.gather(saying, return_exceptions=True)
        return None

    async def _say(self, call: Any) -> None:
        while True:
            is_last = self._is_closing
            await call.write(self._cache.next_message())
            if is_last:
                await call.done_writing()
                return
            await self._rest()

    async def _rest(self) -> None:
        """Until there is something to say."""
        idle_for = 0.0
        while not await self._is_woken(pause := self._cache.pause) and not self._cache.is_active:
            self._is_idle = True
            idle_for += pause
            if idle_for >= _IDLE_SECONDS:
                break
        self._is_idle = False
        self._wake.clear()

    async def _is_woken(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._wake.wait()
        return False
