"""Keeps strangers from filling a process: with connections, and with what they send on them and never end.

The transports bound what some things on a connection may cost, but neither the whole of it nor the number of
connections, and native not even the length of a message. So somebody looks, several times a second, from outside:

- Where a port has too many connections, those go to which the server has had nothing to say for the longest: they said
  nothing, or half of something. Who is being answered stays, and there is always room for another.
- Where the process takes more memory than it may, or is about to, those are cut off at once that sent far more than
  they were answered. Where it still does seconds later, everybody is sent away: what is held for a connection goes with
  it, and whoever meant no harm comes back. Where that does not help either, it is not strangers who take it, and it is
  let be.

Who is sent away finishes the calls under way first (GOAWAY), and is cut off a second later; over TLS, where nothing can
be written between the transport's own words, there is that second alone. On Linux; elsewhere nobody looks.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from latchgate_server import log_events, observability
from latchgate_server.core.ports import Clock
from latchgate_server.transport.sockets import POSSIBLE, descriptors, discard, say_goodbye, socket_at, sockets

CONNECTIONS = 4_096
"""To a port. More than that and it is brought down to seven eighths of it."""
LOOK_SECONDS = 0.1
COUNT_SECONDS = 1.0
"""How often connections are counted; also for how long somebody who was sent away may finish."""

_SPARE = 256
"""Descriptors for everything else, such as connections to the database."""
_ONE_SIDED = 64
"""So many bytes received for each one sent are no conversation; an Envoy whose requests have large headers has 50."""
_LITTLE = 4 * 1_024
_MORE = 64 * 1_024 * 1_024
_STATM = Path("/proc/self/statm")
_FORESIGHT_SECONDS = 0.5
"""For how long memory goes on growing once somebody is cut off: what the transport has read, it takes apart first."""
_QUIET_SECONDS = 60.0
_PATIENCE_SECONDS = 3.0

# Where Linux's struct tcp_info has how long ago something was last sent (ms), and bytes that were acknowledged and
# received. It only ever grows at its end.
_TCP_INFO = struct.Struct("=44xI72xQQ")

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Connection:
    """descriptor: the transport's. inode: its name, which another at that descriptor does not have.

    unanswered: seconds since the server last said something. received, sent: bytes.
    """

    descriptor: int
    inode: int
    unanswered: float = 0.0
    received: int = 0
    sent: int = 0

    @property
    def is_one_sided(self) -> bool:
        return self.received > _LITTLE + _ONE_SIDED * self.sent


class Doorkeeper:
    """See the top of this file."""

    def __init__(
        self, addresses: Sequence[str], clock: Clock, *, memory: int, encrypted: bool, connections: int = CONNECTIONS
    ) -> None:
        """addresses: of the ports, with their real numbers. memory: bytes that this process may have in memory."""
        self._addresses = addresses
        self._clock = clock
        self._memory = memory
        self._encrypted = encrypted
        self._connections = connections
        self._leaving: list[_Connection] = []
        self._looked, self._had = clock.monotonic(), _taken()
        self._gave_back = -_QUIET_SECONDS
        self._counted = self._short_since = -_QUIET_SECONDS
        self._sent_all_away = False
        self._let_be = 0
        self._told_of: dict[str, float] = {}

    async def run(self) -> None:
        """Look, until cancelled. In a thread of its own: an event loop that has much to do would look too late."""
        ended = threading.Event()
        thread = ThreadPoolExecutor(1, thread_name_prefix="doorkeeper")
        try:
            await asyncio.get_running_loop().run_in_executor(thread, self._keep_looking, ended)
        finally:
            ended.set()
            thread.shutdown(wait=False)

    def _keep_looking(self, ended: threading.Event) -> None:
        while not ended.wait(LOOK_SECONDS):
            now = self._clock.monotonic()
            taken = _taken()
            foreseen = self._foresee(now, taken)
            if taken <= self._memory:
                self._short_since, self._sent_all_away, self._let_be = now, False, 0
            is_short = foreseen > max(self._memory, self._let_be)
            is_time = now >= self._counted + COUNT_SECONDS
            if is_time:
                self._counted = now
            if is_short or (is_time and (self._leaving or descriptors() > self._connections)):
                with suppress(OSError):  # such as no descriptor left to look with; somebody closes one in time
                    self._look(now, foreseen if is_short else 0, is_time)

    def _foresee(self, now: float, taken: int) -> int:
        """What will be taken by the time that cutting somebody off has helped, if memory grows on as it just did."""
        growth = max(0, taken - self._had) / max(now - self._looked, LOOK_SECONDS)
        self._looked, self._had = now, taken
        return taken + int(_FORESIGHT_SECONDS * growth)

    def _look(self, now: float, foreseen: int, is_time: bool) -> None:
        if is_time:
            self._cut_off(self._leaving)
            self._leaving = []
            for address in self._addresses:
                self._thin_out(address, now)
        if foreseen:
            self._make_room(now, foreseen)

    def _thin_out(self, address: str, now: float) -> None:
        present = list(_connections(address))
        if len(present) <= self._connections:
            return
        present.sort(key=lambda connection: connection.unanswered, reverse=True)
        surplus = present[: len(present) - self._connections * 7 // 8]
        self._send_away(surplus)
        self._tell("connections", len(surplus), now)

    def _make_room(self, now: float, foreseen: int) -> None:
        is_growing = foreseen > self._had
        if not is_growing and now >= self._gave_back + COUNT_SECONDS:
            self._gave_back = now
            _give_back()
            foreseen = _taken()
            if foreseen <= max(self._memory, self._let_be):
                return
        present = [connection for address in self._addresses for connection in _connections(address)]
        hoarders = [connection for connection in present if connection.is_one_sided]
        if hoarders:
            hoarders.sort(key=lambda connection: connection.received - _ONE_SIDED * connection.sent, reverse=True)
            chosen, freed = [], 0
            for hoarder in hoarders:
                if freed > 2 * (foreseen - self._memory):
                    break
                chosen.append(hoarder)
                freed += hoarder.received
            self._cut_off(chosen)
            self._tell("memory", len(chosen), now)
        if now < self._short_since + _PATIENCE_SECONDS:
            return
        if not self._sent_all_away:
            self._sent_all_away = True
            self._short_since = now  # for those who finish what they have begun, and for the memory to come back
            self._send_away(present)
            self._tell("memory", len(present), now)
        else:
            self._let_be = foreseen + _MORE
            self._sent_all_away = False
            _log.warning(log_events.MEMORY_SHORT, taken=self._had, memory=self._memory)

    def _send_away(self, chosen: Sequence[_Connection]) -> None:
        self._leaving.extend(chosen)
        if not self._encrypted:
            for connection in chosen:
                with socket_at(connection.descriptor, connection.inode) as found:
                    if found is not None:
                        say_goodbye(found)

    def _cut_off(self, chosen: Sequence[_Connection]) -> None:
        for connection in chosen:
            with suppress(OSError), socket_at(connection.descriptor, connection.inode) as found:
                if found is not None:
                    found.shutdown(socket.SHUT_RDWR)
                    discard(found)

    def _tell(self, cause: Literal["connections", "memory"], count: int, now: float) -> None:
        """Count it, and log it once a minute: strangers must not fill the log."""
        observability.CONNECTIONS_SHED.labels(cause).inc(count)
        if now >= self._told_of.get(cause, -_QUIET_SECONDS) + _QUIET_SECONDS:
            self._told_of[cause] = now
            _log.warning(log_events.CONNECTIONS_SHED, cause=cause, count=count)


def allowed_connections() -> int:
    """How many connections to a port this process has files for, with both ports and as many again on their way.

    Raises its limit on open files as far as it may, up to what it can use.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * CONNECTIONS + _SPARE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):  # a sandbox may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    return CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(CONNECTIONS, (soft - _SPARE) // 4))


def _connections(address: str) -> Iterator[_Connection]:
    for descriptor, connection in sockets(address):
        inode = os.fstat(connection.fileno()).st_ino
        if connection.family == socket.AF_UNIX:
            yield _Connection(descriptor, inode)
            continue
        told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        if len(told) == _TCP_INFO.size:
            unanswered, sent, received = _TCP_INFO.unpack(told)
            yield _Connection(descriptor, inode, unanswered / 1_000, received, sent)


def _taken() -> int:
    """Bytes that this process has in memory; 0 where nobody tells."""
    return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE") if POSSIBLE else 0


def _give_back() -> None:
    """Have the C library give freed memory back to the system, which it keeps where it lies in small pieces."""
    if POSSIBLE:
        with suppress(ImportError, AttributeError, OSError, MemoryError):  # not every C library has it, or lets us
            import ctypes  # noqa: PLC0415 - hardening may forbid it

            ctypes.CDLL(None).malloc_trim(0)
