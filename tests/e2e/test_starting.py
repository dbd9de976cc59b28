"""What `serve` needs to start and what it can do without, and how it tells systemd that it is up."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from latchgate.v1.decision_pb2 import DECISION_ALLOW
from tests.support.server import ServerProcess, Verify, make_root_key


def test_a_store_of_rate_limits_that_is_away_keeps_no_server_from_starting(database_url: str) -> None:
    root_key = make_root_key(database_url)
    with ServerProcess(database_url, {"limit_store": "valkey://127.0.0.1:1/0"}) as server:
        verify = Verify(server.verify_address)
        assert verify(root_key).decision == DECISION_ALLOW
        verify.close()


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
