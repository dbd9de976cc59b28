"""Several worker processes on the same ports: starts them, starts them again when they crash, ends them."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from latchgate_server import exposition, log_events, service_manager
from latchgate_server.config import Settings, SettingsProblem
from latchgate_server.service_manager import tell_service_manager

READY = b"ready\n"
"""What a worker writes to its standard output once it serves."""

_METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_FOLDER_PREFIX = "latchgate-metrics-"

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_START_SECONDS = 30.0
_STOP_SECONDS = 30.0

_log = structlog.get_logger()


async def supervise(settings: Settings) -> None:
    """Run `settings.workers` workers until SIGINT or SIGTERM; have them reload on SIGHUP.

    Raises SettingsProblem where they cannot share a listener, and OSError where one is taken.
    """
    if settings.verify_listen.startswith("unix:") or settings.admin_listen.startswith("unix:"):
        raise SettingsProblem(
            "several workers cannot share a Unix socket: set LATCHGATE_WORKERS=1, or listen on a port"
        )
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is somebody to pass it on to
    with ExitStack() as stack:
        verify = stack.enter_context(_reserved(settings.verify_listen))
        admin = stack.enter_context(_reserved(settings.admin_listen))
        folder = stack.enter_context(_metrics_folder())
        inherited = {name: value for name, value in os.environ.items() if name != service_manager.SOCKET}
        environment = inherited | {
            "LATCHGATE_VERIFY_LISTEN": verify,
            "LATCHGATE_ADMIN_LISTEN": admin,
            "LATCHGATE_METRICS_LISTEN": "",
            _METRICS_FOLDER: folder,
        }
        metrics = stack.enter_context(_metrics(settings.metrics_listen, folder))
        workers = [_Worker(place, environment) for place in range(settings.workers)]
        loop.add_signal_handler(signal.SIGHUP, _reload, workers)
        running = [loop.create_task(worker.run()) for worker in workers]
        try:
            await _all_ready(workers, stopping)
            _log.info(log_events.SERVING, verify=verify, admin=admin, metrics=metrics, workers=len(workers))
            tell_service_manager(service_manager.READY)
            await stopping.wait()
        finally:
            tell_service_manager(service_manager.STOPPING)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            patience = settings.drain_delay + 2 * settings.tls_connection_age + _STOP_SECONDS
            await asyncio.gather(*(worker.stop(patience) for worker in workers))


class _Worker:
    """One place for a worker, filled again whenever the process in it ends."""

    def __init__(self, place: int, environment: Mapping[str, str]) -> None:
        self._place = place
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._is_ready = False
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Keep a process running."""
        pause = _FIRST_PAUSE
        while True:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "latchgate_server", "serve", "--worker"),
                env=self._environment,
                # Closed by the system should the supervisor be killed; then the worker ends as well.
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                # A Ctrl-C on the terminal reaches the supervisor alone, which then ends the workers in good order.
                start_new_session=True,
            )
            self._process, self._is_ready = process, False
            assert process.stdout is not None
            if await process.stdout.readline() == READY:
                self.ready.set()
                self._is_ready = True
                pause = _FIRST_PAUSE
            code = await process.wait()
            mark_process_dead(  # type: ignore[no-untyped-call]  # it has no annotations
                process.pid, self._environment[_METRICS_FOLDER]
            )
            _log.error(log_events.WORKER_ENDED, worker=self._place, pid=process.pid, code=code, pause=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def reload(self) -> None:
        """Have the process reload. One that is only starting reads everything anyway."""
        process = self._process
        if process is not None and process.returncode is None and self._is_ready:
            process.send_signal(signal.SIGHUP)

    async def stop(self, patience: float) -> None:
        """End the process in good order, or by force where that takes longer than `patience` seconds."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), patience)
        except TimeoutError:
            process.kill()
            await process.wait()


def _reload(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.reload()


async def _all_ready(workers: list[_Worker], stopping: asyncio.Event) -> None:
    async def ready() -> None:
        for worker in workers:
            await worker.ready.wait()

    tasks = [asyncio.create_task(ready()), asyncio.create_task(_set(stopping))]
    done, _ = await asyncio.wait(tasks, timeout=_START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    if not done:
        raise OSError(f"the workers do not serve after {_START_SECONDS:.0f} seconds; the lines above say why")


async def _set(event: asyncio.Event) -> None:
    await event.wait()


@contextmanager
def _reserved(address: str) -> Iterator[str]:
    """Hold an address without listening on it, so that port 0 is one port for all workers. Gives the address."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            held.bind((host.strip("[]"), int(port)))
        except OSError as error:
            raise OSError(f"cannot listen on {address}: {error.strerror}") from error
        yield f"{host}:{held.getsockname()[1]}"


@contextmanager
def _metrics_folder() -> Iterator[str]:
    """A folder where workers count. Those that supervisors left who were killed go, as they may lie in memory."""
    for left in Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*"):
        with suppress(OSError), _held(left, fcntl.LOCK_EX | fcntl.LOCK_NB):  # else another user's, or of one that lives
            shutil.rmtree(left, ignore_errors=True)
    while True:
        with tempfile.TemporaryDirectory(prefix=_FOLDER_PREFIX) as folder, _held(Path(folder), fcntl.LOCK_EX):
            if Path(folder).exists():  # else another supervisor took it for one that was left, just before it was held
                yield folder
                return


@contextmanager
def _held(folder: Path, lock: int) -> Iterator[None]:
    """A folder with a lock on it, which goes with this process. Raises OSError where it cannot be had."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, lock)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _metrics(address: str, folder: str) -> Iterator[str]:
    """One endpoint for the metrics of all workers."""
    if not address:
        yield ""
        return
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]  # it has no annotations
    with exposition.metrics_server(address, registry) as actual:
        yield actual
