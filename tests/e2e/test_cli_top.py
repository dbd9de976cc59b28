"""`latchgate top` as an operator meets it: on a terminal, in a script, and where nothing answers."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from latchgate.v1.verify_service_pb2 import VerifyRequest
from latchgate.v1.verify_service_pb2_grpc import VerifyServiceStub
from tests.e2e.commands import Cli, NewKey
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until

NOWHERE = "127.0.0.1:1"
LEAVE_ALTERNATE_SCREEN = "\x1b[?1049l"


class Screen:
    """A terminal with `latchgate top` on it."""

    def __init__(self, env: dict[str, str], columns: int) -> None:
        self._master, slave = pty.openpty()
        self.resize(columns)
        command = [sys.executable, "-m", "latchgate_server", "top", "--interval", "500ms"]
        env = {name: value for name, value in env.items() if name not in {"COLUMNS", "LINES"}} | {
            "TERM": "xterm-256color"
        }
        self.process = subprocess.Popen(
            command, env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        self.shown = ""

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 60, columns, 0, 0))

    def until(self, holds: Callable[[str], bool], seconds: float = 30.0) -> str:
        """What it has shown since this was called, once that is as wanted."""
        deadline, new = time.monotonic() + seconds, ""
        while not holds(plain(new)):
            assert time.monotonic() < deadline, plain(new)
            if select.select([self._master], [], [], 0.1)[0]:
                try:
                    new += os.read(self._master, 65_536).decode("utf-8", "replace")
                except OSError:  # what Linux gives once nobody has the other end any more
                    break
        self.shown += new
        return plain(new)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


def plain(shown: str) -> str:
    """Without what positions and colours text."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)


@contextmanager
def on_screen(env: dict[str, str], columns: int = 120) -> Iterator[Screen]:
    screen = Screen(env, columns)
    try:
        yield screen
    finally:
        screen.close()


def with_metrics(cli: Cli, server: ServerProcess, *more: str) -> dict[str, str]:
    return cli.env | {"LATCHGATE_METRICS_ADDRESS": ",".join((server.metrics_address, *more))}


@contextmanager
def asked_all_the_time(server: ServerProcess, *keys: str) -> Iterator[None]:
    """Verify these keys, over and over; at least once before the context begins."""
    program = (
        "import sys, time, grpc\n"
        "from latchgate.v1.verify_service_pb2 import VerifyRequest\n"
        "from latchgate.v1.verify_service_pb2_grpc import VerifyServiceStub\n"
        "stub = VerifyServiceStub(grpc.insecure_channel(sys.argv[1]))\n"
        "keys = sys.stdin.read().split()\n"
        "def ask():\n"
        "    for key in keys:\n"
        "        stub.Verify(VerifyRequest(key=key))\n"
        "ask()\n"
        "print(flush=True)\n"
        "while True:\n"
        "    ask()\n"
        "    time.sleep(0.02)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, server.verify_address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n".join(keys))
        process.stdin.close()
        try:
            assert process.stdout.readline()
            yield
        finally:
            process.kill()


def test_a_picture_goes_on_until_ctrl_c(cli: Cli, cli_server: ServerProcess, new_key: NewKey) -> None:
    key = new_key("--name", "hot one")
    env = with_metrics(cli, cli_server, NOWHERE)
    with asked_all_the_time(cli_server, key.key_string, "nonsense"), on_screen(env) as screen:
        rates = re.compile(r"[1-9]\d* decisions/s   allowed [1-9]\d*   denied [1-9]\d*")
        shown = screen.until(
            lambda text: (
                all(said in text for said in ("INVALID_API_KEY", key.key_id, "valid"))
                and rates.search(text) is not None
            )
        )
        for title in ("LATENCY", "DENIALS", "CHANGES", "MEMORY", "RESOURCES", "REPLICAS", "HOTTEST KEYS"):
            assert title in shown
        assert f"{NOWHERE}  nothing answers there" in shown
        screen.resize(60)
        screen.until(lambda text: re.search(r"^LATENCY(?!.*DENIALS)", text, re.MULTILINE) is not None)
        os.killpg(screen.process.pid, signal.SIGINT)
        screen.until(lambda text: screen.process.poll() is not None)
        assert screen.process.wait(10) == 0
    assert LEAVE_ALTERNATE_SCREEN in screen.shown
    assert "Traceback" not in screen.shown
    assert key.key_string.partition(".")[2] not in screen.shown


def test_one_picture_for_a_script(cli: Cli, cli_server: ServerProcess, new_key: NewKey) -> None:
    key = new_key()
    with grpc.insecure_channel(cli_server.verify_address) as channel:
        VerifyServiceStub(channel).Verify(VerifyRequest(key=key.key_string), timeout=20)
    wait_until(lambda: key.key_id in cli("keys", "busiest", "--limit", "100").out)
    here = Cli(with_metrics(cli, cli_server), cli.secret)
    with asked_all_the_time(cli_server, key.key_string):
        shown = here("top", "--once").out
        told: Any = here("top", "--output", "json", "--interval", "1s").json
    assert "decisions/s" in shown.splitlines()[0]
    assert "\x1b" not in shown
    assert told["allowed_per_second"] > 1
    (replica,) = told["replicas"]
    assert replica["address"] == cli_server.metrics_address
    assert replica["lease_valid"] is True
    verify = next(row for row in told["latency"] if row["method"] == "Verify")
    assert 0 < verify["p50_seconds"] <= verify["p99_seconds"] < 20
    assert told["cache"]["records"] >= 1
    hottest = next(found for found in told["hottest"]["keys"] if found["key_id"] == key.key_id)
    assert hottest["this_hour"] >= 1


def test_without_an_administrators_key_all_but_the_hottest_keys_is_shown(cli: Cli, cli_server: ServerProcess) -> None:
    here = Cli(with_metrics(cli, cli_server), cli.secret)
    assert "LATCHGATE_ADMIN_KEY_FILE" in here("top", "--once", "--interval", "500ms", LATCHGATE_ADMIN_KEY_FILE="").out


def test_where_nothing_answers_it_says_where_it_looked(cli: Cli) -> None:
    done = cli("top", code=1, LATCHGATE_METRICS_ADDRESS=NOWHERE)
    assert done.out == ""
    assert done.err == (
        f"latchgate: http://{NOWHERE}/metrics: nothing answers there; is latchgate running? "
        "(LATCHGATE_METRICS_ADDRESS says where)\n"
    )


def test_what_is_no_address_and_no_interval_is_wrong_usage(cli: Cli) -> None:
    assert "HOST:PORT" in cli("top", "--metrics", "http://localhost:9464/metrics", code=2).err
    assert "--interval" in cli("top", "--interval", "1ms", code=2).err


def test_another_servers_port_is_told_apart(cli: Cli, cli_server: ServerProcess) -> None:
    done = cli("top", "--metrics", cli_server.verify_address, code=1)
    assert cli_server.verify_address in done.err
