"""What `serve` needs to start and what it can do without, and how it tells systemd that it is up."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import pytest

from latchgate.v1.decision_pb2 import DECISION_ALLOW
from tests.support.server import ServerProcess, Verify, environment, make_root_key, run_command


def test_a_store_of_rate_limits_that_is_away_keeps_no_server_from_starting(database_url: str) -> None:
    root_key = make_root_key(database_url)
    with ServerProcess(database_url, {"limit_store": "valkey://127.0.0.1:1/0"}) as server:
        verify = Verify(server.verify_address)
        assert verify(root_key).decision == DECISION_ALLOW
        verify.close()


def test_a_server_that_finds_the_database_busy_starts_as_soon_as_it_is_not(database_url: str) -> None:
    make_root_key(database_url)
    locked = threading.Event()

    async def hold_up() -> None:
        connection = await asyncpg.connect(database_url)
        async with connection.transaction():
            await connection.execute("LOCK TABLE deployment")
            locked.set()
            await asyncio.sleep(3)
        await connection.close()

    with ThreadPoolExecutor() as threads:
        holding_up = threads.submit(asyncio.run, hold_up())
        assert locked.wait(20)
        with ServerProcess(database_url, {"lease": "1s"}):  # which waits half a second for a lock
            holding_up.result()


@pytest.mark.parametrize("transport", ["native", "grpcio"])
def test_a_unix_socket_is_taken_over_from_the_dead_alone(database_url: str, tmp_path: Path, transport: str) -> None:
    root_key = make_root_key(database_url)
    socket_path = tmp_path / "verify.sock"
    settings = {"transport": transport, "verify_listen": f"unix:{socket_path}"}

    with ServerProcess(database_url, settings) as server:
        second = run_command("serve", env=environment(database_url, **settings))
        assert second.returncode == 1
        assert f"latchgate: cannot listen on unix:{socket_path}: a server that runs has it" in second.stderr
        verify = Verify(server.verify_address)
        assert verify(root_key).decision == DECISION_ALLOW
        verify.close()
        server.kill()

    assert socket_path.exists(), "a server that is killed leaves it behind"
    with ServerProcess(database_url, settings) as server:
        verify = Verify(server.verify_address)
        assert verify(root_key).decision == DECISION_ALLOW
        verify.close()


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """One for TMPDIR: the native transport has a Unix socket in there, whose path may have a hundred characters."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_what_killed_workers_counted_is_cleared_away_and_what_living_ones_count_is_not(
    database_url: str, short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(short_folder))
    settings = {"workers": "2"}

    def folders() -> set[Path]:
        return set(short_folder.glob("latchgate-metrics-*"))

    with ServerProcess(database_url, settings) as killed:
        left = folders()
        assert len(left) == 1
        killed.kill()
    with ServerProcess(database_url, settings):
        living = folders()
        assert len(living) == 1
        assert not living & left
        with ServerProcess(database_url, settings):
            assert folders() > living
    assert not folders()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_systemd_is_told_once_that_the_service_is_up_and_once_that_it_ends(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        with ServerProcess(database_url, {"workers": workers}) as server:
            assert manager.recv(100) == b"READY=1"
            assert server.stop() == 0
        assert manager.recv(100) == b"STOPPING=1"
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(100)
