"""Latchgate as a real process, started as a user starts it, and its stubs."""

from __future__ import annotations

import base64
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

from latchgate.v1.admin_service_pb2_grpc import AdminServiceStub
from latchgate.v1.verify_service_pb2 import VerifyRequest
from latchgate.v1.verify_service_pb2_grpc import VerifyServiceStub
from tests.support.quick_cli import quick_latchgate

PEPPER = base64.b64encode(bytes(range(32))).decode()
START_SECONDS = 30.0
STOP_SECONDS = 15.0
PATIENT = "5s"
"""A LATCHGATE_LIMIT_STORE_TIMEOUT for tests that count: a store that is late is one that is lost."""
KEPT_EVENTS = 20_000
"""How much of a log is kept: the last of it."""


def environment(database_url: str, **settings: str) -> dict[str, str]:
    """The environment of a process: nothing of the caller's settings, free ports, the tests' pepper.

    settings: further LATCHGATE_ variables, by their names without the prefix, in lower case.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LATCHGATE_")}
    own = {
        "database_url": database_url,
        "pepper": PEPPER,
        "verify_listen": "127.0.0.1:0",
        "admin_listen": "127.0.0.1:0",
        "metrics_listen": "127.0.0.1:0",
        "log_format": "json",
        **settings,
    }
    return inherited | {f"LATCHGATE_{name.upper()}": value for name, value in own.items()}


def _form() -> dict[str, str]:
    """SERVER_PATH, where it is set: the folder of a compiled server, for processes that serve to import first."""
    return {"PYTHONPATH": os.environ["SERVER_PATH"]} if "SERVER_PATH" in os.environ else {}


def run_command(*arguments: str, env: Mapping[str, str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run `latchgate ARGUMENTS` to its end."""
    command = [str(quick_latchgate())]
    if env.get("PYTHONPATH") != os.environ.get("PYTHONPATH"):
        # Something is to be imported that others have not.
        command = [sys.executable, "-m", "latchgate_server"]
    return subprocess.run(
        [*command, *arguments], env=env, input=stdin, text=True, capture_output=True, timeout=60, check=False
    )


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def make_root_key(database_url: str, **settings: str) -> str:
    """Run `latchgate init` and return the key string that it prints."""
    done = run_command("init", env=environment(database_url, **settings))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@dataclass
class ServerProcess:
    """`latchgate serve` as a process. Use as a context: it ends with it, by SIGTERM, or SIGKILL where that fails.

    credentials: those of a client, where it speaks TLS. module: what is started in place of Latchgate's own. variables:
    further ones of its environment, which go over all others: old_version.py has some that have another version run.
    """

    database_url: str
    settings: Mapping[str, str] = field(default_factory=dict)
    credentials: grpc.ChannelCredentials | None = None
    module: str = "latchgate_server"
    variables: Mapping[str, str] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    verify_address: str = ""
    admin_address: str = ""
    metrics_address: str = ""

    def __enter__(self) -> ServerProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def metrics(self) -> Mapping[str, float]:
        """What /metrics says: each sample's name with its labels, and its value."""
        with urllib.request.urlopen(f"http://{self.metrics_address}/metrics", timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    @property
    def worker_pids(self) -> list[int]:
        """The ids of its worker processes; none where it serves itself. Asks Linux."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def start(self) -> None:
        """Start, and wait until it serves."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", self.module, "serve"],
            env=environment(self.database_url, **self.settings) | _form() | dict(self.variables),
            stderr=subprocess.PIPE,
            text=True,
        )
        self._events: queue.Queue[Mapping[str, Any] | None] = queue.Queue(KEPT_EVENTS)
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        try:
            serving = self.wait_for("serving")
        except BaseException:
            self.stop()
            raise
        self.verify_address = serving["verify"]
        self.admin_address = serving["admin"]
        self.metrics_address = serving["metrics"]

    def wait_for(self, event: str, seconds: float = START_SECONDS) -> Mapping[str, Any]:
        """The next log event of that name. Fails where the process ends, or none comes in time."""
        while True:
            entry = self._events.get(timeout=seconds)
            assert entry is not None, "the server ended:\n" + "".join(self.log)
            if entry.get("event") == event:
                return entry

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End the process and its workers at once, as a crash does."""
        workers = self.worker_pids if self._process.poll() is None else []
        self._process.kill()
        for pid in workers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.stop()

    def stop(self) -> int:
        """End the process and return its exit code."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        code = self._process.wait()
        self._reader.join()
        return code

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            for line in stream:
                if len(self.log) >= KEPT_EVENTS:
                    del self.log[: KEPT_EVENTS // 2]
                self.log.append(line)
                if self._events.full():
                    with suppress(queue.Empty):
                        self._events.get_nowait()
                try:
                    self._events.put(json.loads(line))
                except ValueError:
                    continue
        self._events.put(None)


def open_channel(address: str, credentials: grpc.ChannelCredentials | None = None) -> grpc.Channel:
    """A channel; over TLS with these credentials."""
    return grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address)


class Admin:
    """AdminService with a key: `admin.CreateTenant(request)`, over a channel of its own."""

    def __init__(
        self, address: str, key: str, *metadata: tuple[str, str], credentials: grpc.ChannelCredentials | None = None
    ) -> None:
        self._channel = open_channel(address, credentials)
        self._stub = AdminServiceStub(self._channel)
        self._metadata = [("authorization", f"Bearer {key}"), *metadata]

    def __getattr__(self, method: str) -> Any:
        call = getattr(self._stub, method)
        return lambda request: call(request, metadata=self._metadata, timeout=20)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


class Verify:
    """VerifyService: `verify(key, required_permissions=…)`, over a channel of its own, as a caller with this key."""

    def __init__(self, address: str, key: str = "", credentials: grpc.ChannelCredentials | None = None) -> None:
        self._channel = open_channel(address, credentials)
        self.stub = VerifyServiceStub(self._channel)
        self.metadata = (("authorization", f"Bearer {key}"),) if key else ()

    def __call__(self, key: str, **fields: Any) -> Any:
        """The response to a VerifyRequest with these fields."""
        return self.stub.Verify(VerifyRequest(key=key, **fields), timeout=20, metadata=self.metadata)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()
