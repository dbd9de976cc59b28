"""A network that fails on demand: a TCP proxy on loopback in front of PostgreSQL, or of any other server.

Give each server process one of its own, by its LATCHGATE_DATABASE_URL, and its database fails for it alone. A proxy
runs in a thread with its own event loop; each of its methods returns once what it asks for is in force.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import cast
from urllib.parse import parse_qs, urlsplit

from tests.support.ports import free_port

_HOST = "127.0.0.1"


class FaultProxy:
    """A proxy that lets everything pass until it is told otherwise. Use as a context.

    Nothing is ever lost on a connection that lives: what was held back goes on, in order, on `restore`.
    """

    def __init__(self, database_url: str) -> None:
        """database_url: where to connect to, a TCP address or the folder of a Unix socket as `?host=`.

        Of another server than PostgreSQL, `tcp://HOST:PORT`.
        """
        self._target = urlsplit(database_url)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._stalls_new = False
        self._port = 0
        self.delay_seconds = 0.0
        self.least_dropped = math.inf
        self.dropped_answers = 0

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        self._run(self._listen)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._run(self._close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        """The database's URL, through this proxy."""
        return f"postgresql://{self._target.username or 'postgres'}@{_HOST}:{self._port}{self._target.path}"

    @property
    def address(self) -> str:
        """Where it listens: `HOST:PORT`."""
        return f"{_HOST}:{self._port}"

    @property
    def connections(self) -> int:
        """How many connections pass through it now."""
        return len(self._links)

    # What it can do -------------------------------------------------------------------------------------------------

    def restore(self) -> None:
        """Let everything pass again, also what was held back."""
        self._run(self._restore)

    def refuse(self) -> None:
        """Refuse new connections; those that are open go on."""
        self._run(self._stop_listening)

    def drop(self) -> None:
        """Break every connection, as a crashed peer does. New ones are treated as before."""
        self._run(self._drop)

    def drop_at_next_answer(self, least: int) -> None:
        """Break the next connection on which the server says so many bytes at once, in place of carrying them."""

        def wait_for_it() -> None:
            self.least_dropped = least

        self._run(wait_for_it)

    def stall(self) -> None:
        """Carry no byte in either direction, and no end of a connection either; new connections are accepted alike."""
        self._run(lambda: self._stall(also_new=True))

    def stall_open_ones(self) -> None:
        """Stall the connections that are open, as a firewall that forgot them does; new ones pass."""
        self._run(lambda: self._stall(also_new=False))

    def delay(self, seconds: float) -> None:
        """Carry everything this much later, in each direction."""

        def set_delay() -> None:
            self.delay_seconds = seconds

        self._run(set_delay)

    # How it does it; all of this runs in its own thread ---------------------------------------------------------------

    def _run(self, action: Callable[[], object]) -> None:
        async def run() -> None:
            result = action()
            if asyncio.iscoroutine(result):
                await result

        done: Future[None] = asyncio.run_coroutine_threadsafe(run(), self._loop)
        done.result(timeout=10)

    async def _listen(self) -> None:
        if self._server is None:
            # One that stays free while nobody listens on it: systems give none of them to outgoing connections.
            self._port = self._port or free_port()
            self._server = await self._loop.create_server(self._accept, _HOST, self._port)

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _restore(self) -> None:
        self._stalls_new = False
        self.delay_seconds = 0.0
        for link in list(self._links):
            link.resume()
        await self._listen()

    def _drop(self) -> None:
        for link in list(self._links):
            link.abort()

    def _stall(self, *, also_new: bool) -> None:
        self._stalls_new = also_new
        for link in self._links:
            link.stall()

    async def _close(self) -> None:
        self._stop_listening()
        self._drop()
        await asyncio.sleep(0.01)  # in which the transports close their sockets

    def _accept(self) -> asyncio.Protocol:
        link = _Link(self, stalled=self._stalls_new)
        self._links.add(link)
        link.connecting = self._loop.create_task(self._connect(link))
        return link.client

    async def _connect(self, link: _Link) -> None:
        await link.flows.wait()
        folders = parse_qs(self._target.query).get("host")
        port = self._target.port or 5432
        try:
            if folders:
                await self._loop.create_unix_connection(lambda: link.upstream, f"{folders[0]}/.s.PGSQL.{port}")
            else:
                await self._loop.create_connection(lambda: link.upstream, self._target.hostname or _HOST, port)
        except OSError:
            link.abort()

    def drops_answer(self, said: bytes) -> bool:
        """Whether this is the answer that was to be dropped; only one is."""
        if len(said) < self.least_dropped:
            return False
        self.least_dropped = math.inf
        self.dropped_answers += 1
        return True

    def forget(self, link: _Link) -> None:
        """A link has ended on both sides."""
        self._links.discard(link)


class _Link:
    """A connection from a client and the one to the database that belongs to it."""

    def __init__(self, proxy: FaultProxy, *, stalled: bool) -> None:
        self.proxy = proxy
        self.client = _Side(self)
        self.upstream = _Side(self)
        self.client.peer, self.upstream.peer = self.upstream, self.client
        self.flows = asyncio.Event()
        self.connecting: asyncio.Task[None] | None = None
        if not stalled:
            self.flows.set()

    def stall(self) -> None:
        self.flows.clear()
        for side in (self.client, self.upstream):
            side.pause()

    def resume(self) -> None:
        self.flows.set()
        for side in (self.client, self.upstream):
            side.resume()

    def abort(self) -> None:
        """Break both connections at once."""
        for side in (self.client, self.upstream):
            side.abort()
        self.end()

    def end(self) -> None:
        """Note that no more will be carried."""
        if self.connecting is not None:
            self.connecting.cancel()
        self.proxy.forget(self)


class _Side(asyncio.Protocol):
    """One socket of a link. What it reads waits in its outbox until it is due, and is then written by its peer."""

    peer: _Side

    def __init__(self, link: _Link) -> None:
        self._link = link
        self._transport: asyncio.Transport | None = None
        self._outbox: deque[tuple[float, bytes | None]] = deque()  # when it is due, and what; None: the end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if not self._link.flows.is_set():
            self.pause()
        self.peer.flush()

    def data_received(self, data: bytes) -> None:
        if self is self._link.upstream and self._link.proxy.drops_answer(data):
            self._link.abort()
        else:
            self._put(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._put(None)

    def pause(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()
        self.flush()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def flush(self) -> None:
        """Let the peer write what is due."""
        loop = asyncio.get_running_loop()
        while self._outbox and self._link.flows.is_set():
            due, data = self._outbox[0]
            if due > loop.time():
                loop.call_at(due, self.flush)
                return
            target = self.peer._transport
            if data is None:
                if target is not None:
                    target.close()
                self._link.end()
            elif target is None:
                return  # not connected yet; it flushes once it is
            else:
                target.write(data)
            self._outbox.popleft()

    def _put(self, data: bytes | None) -> None:
        self._outbox.append((asyncio.get_running_loop().time() + self._link.proxy.delay_seconds, data))
        self.flush()
