"""Keeps strangers from filling a process: with connections, and with what they send on them and never end.

The transports bound what some things on a connection may cost, but neither the whole of it nor the number of
connections, and native not even the length of a message. So somebody looks, several times a second, from outside:

- Where a port has too many connections, those go to which the server has had nothing to say for the longest: they said
  nothing, or half of something. Who is being answered stays, and there is always room for another.
- Where the process takes more memory than it may, those are cut off at once that sent far more than they were
  answered. Where it still does seconds later, everybody is sent away: what is held for a connection goes with it, and
  whoever meant no harm comes back. Where that does not help either, it is not strangers who take it, and it is let be.

Who is sent away finishes the calls under way first (GOAWAY), and is cut off a second later; over TLS, where nothing can
be written between the transport's own words, there is that second alone. On Linux; elsewhere nobody looks.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import struct
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from latchgate_server import log_events, observability
from latchgate_server.core.ports import Clock
from latchgate_server.transport.sockets import POSSIBLE, descriptors, say_goodbye, sockets

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
_QUIET_SECONDS = 60.0
_PATIENCE_SECONDS = 3.0

# Where Linux's struct tcp_info has how long ago something was last sent (ms), and bytes that were acknowledged and
# received. It only ever grows at its end.
_TCP_INFO = struct.Struct("=44xI72xQQ")

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Connection:
    """inode: its name. unanswered: seconds since the server last said something. received, sent: bytes."""

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
        self._leaving: set[int] = set()
        self._gave_back = -_QUIET_SECONDS
        self._counted = self._short_since = -_QUIET_SECONDS
        self._sent_all_away = False
        self._let_be = 0
        self._told_of: dict[str, float] = {}

    async def run(self) -> None:
        """Look, until cancelled."""
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            now = self._clock.monotonic()
            taken = _taken()
            if taken <= self._memory:
                self._short_since, self._sent_all_away, self._let_be = now, False, 0
            is_short = taken > max(self._memory, self._let_be)
            is_time = now >= self._counted + COUNT_SECONDS
            if is_time:
                self._counted = now
            if is_short or (is_time and (self._leaving or descriptors() > self._connections)):
                with suppress(OSError):  # such as no descriptor left to look with; somebody closes one in time
                    await asyncio.to_thread(self._look, now, taken if is_short else 0, is_time)

    def _look(self, now: float, taken: int, is_time: bool) -> None:
        if is_time:
            self._cut_off(self._leaving)
            self._leaving = set()
            for address in self._addresses:
                self._thin_out(address, now)
        if taken:
            self._make_room(now, taken)

    def _thin_out(self, address: str, now: float) -> None:
        present = list(_connections(address))
        if len(present) <= self._connections:
            return
        present.sort(key=lambda connection: connection.unanswered, reverse=True)
        surplus = present[: len(present) - self._connections * 7 // 8]
        self._send_away({connection.inode for connection in surplus})
        self._tell("connections", len(surplus), now)

    def _make_room(self, now: float, taken: int) -> None:
        if now >= self._gave_back + COUNT_SECONDS:
            self._gave_back = now
            _give_back()
            taken = _taken()
            if taken <= max(self._memory, self._let_be):
                return
        present = [connection for address in self._addresses for connection in _connections(address)]
        hoarders = [connection for connection in present if connection.is_one_sided]
        if hoarders:
            hoarders.sort(key=lambda connection: connection.received - _ONE_SIDED * connection.sent, reverse=True)
            chosen, freed = set(), 0
            for hoarder in hoarders:
                if freed > 2 * (taken - self._memory):
                    break
                chosen.add(hoarder.inode)
                freed += hoarder.received
            self._cut_off(chosen)
            self._tell("memory", len(chosen), now)
        if now < self._short_since + _PATIENCE_SECONDS:
            return
        if not self._sent_all_away:
            self._sent_all_away = True
            self._short_since = now  # for those who finish what they have begun, and for the memory to come back
            self._send_away({connection.inode for connection in present})
            self._tell("memory", len(present), now)
        else:
            self._let_be = taken + _MORE
            self._sent_all_away = False
            _log.warning(log_events.MEMORY_SHORT, taken=taken, memory=self._memory)

    def _send_away(self, chosen: Collection[int]) -> None:
        self._leaving.update(chosen)
        if not self._encrypted:
            for connection in self._find(chosen):
                say_goodbye(connection)

    def _cut_off(self, chosen: Collection[int]) -> None:
        for connection in self._find(chosen):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _find(self, chosen: Collection[int]) -> Iterator[socket.socket]:
        if chosen:
            for address in self._addresses:
                for _, connection in sockets(address):
                    if os.fstat(connection.fileno()).st_ino in chosen:
                        yield connection

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
    for _, connection in sockets(address):
        inode = os.fstat(connection.fileno()).st_ino
        if connection.family == socket.AF_UNIX:
            yield _Connection(inode)
            continue
        told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        if len(told) == _TCP_INFO.size:
            unanswered, sent, received = _TCP_INFO.unpack(told)
            yield _Connection(inode, unanswered / 1_000, received, sent)


def _taken() -> int:
    """Bytes that this process has in memory; 0 where nobody tells."""
    return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE") if POSSIBLE else 0


def _give_back() -> None:
    """Have the C library give freed memory back to the system, which it keeps where it lies in small pieces."""
    if POSSIBLE:
        with suppress(ImportError, AttributeError, OSError, MemoryError):  # not every C library has it, or lets us
            import ctypes  # noqa: PLC0415 - hardening may forbid it

            ctypes.CDLL(None).malloc_trim(0)
