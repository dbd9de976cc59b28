"""`latchgate dev` as a newcomer meets it: started in an empty folder, called, stopped, killed, started again."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.server import environment, is_alive, run_command
from tests.support.waiting import wait_until

SECONDS = 30.0
"""How long anything here may take."""


class Dev:
    """`latchgate dev` as a process, with its output in files."""

    def __init__(self, home: Path) -> None:
        self.data = home / "data"
        self.env = environment("", log_format="console")
        for name in ("LATCHGATE_DATABASE_URL", "LATCHGATE_PEPPER"):
            del self.env[name]
        self._out, self._err = home / "out", home / "err"
        with self._out.open("w") as out, self._err.open("w") as err:
            command = [sys.executable, "-m", "latchgate_server", "dev", "--data-dir", str(self.data)]
            # A session of its own, so that a test can interrupt all of it, and the tests' own Ctrl-C does not.
            self.process = subprocess.Popen(command, env=self.env, stdout=out, stderr=err, start_new_session=True)

    @property
    def printed(self) -> str:
        return self._out.read_text(encoding="utf-8")

    @property
    def logged(self) -> str:
        return self._err.read_text(encoding="utf-8")

    @property
    def database_pid(self) -> int:
        """The process id that PostgreSQL has left in its folder."""
        return int((self.data / "postgres" / "postmaster.pid").read_text(encoding="ascii").split()[0])

    def wait_until_serving(self) -> None:
        def served() -> bool:
            assert self.process.poll() is None, self.logged
            return "tenants create acme\n" in self.printed

        wait_until(served, SECONDS, "it does not serve:\n" + self.logged)

    def client_env(self) -> dict[str, str]:
        """The environment for client commands, as the printed text says it."""
        exports = re.search(r"export (LATCHGATE_ADMIN_ADDRESS=\S+) (LATCHGATE_ADMIN_KEY_FILE=\S+)", self.printed)
        verify = re.search(r"VerifyService +(\S+)", self.printed)
        assert exports
        assert verify
        variables = dict(pair.split("=", 1) for pair in exports.groups())
        return self.env | variables | {"LATCHGATE_VERIFY_ADDRESS": verify[1]}

    def interrupt(self) -> int:
        """What Ctrl-C on a terminal does: SIGINT for the whole process group. Returns the exit code."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(SECONDS)

    def clean_up(self) -> None:
        """End whatever a failed test has left running, by its process id."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(SECONDS)
            self.process.kill()
            self.process.wait()
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(self.database_pid, signal.SIGQUIT)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A folder with a short path: a Unix socket's is limited to 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="latchgate-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class FirstDay:
    """What happened from the first start to its end."""

    printed: str
    logged: str
    pasted: subprocess.CompletedProcess[str]
    modes: Mapping[str, int]
    second: subprocess.CompletedProcess[str]
    key_string: str
    code: int
    database_pid: int
    database_outlived: bool


@pytest.fixture(scope="module")
def first_day(home: Path) -> Iterator[FirstDay]:
    """A first start: the printed call is pasted, a second `dev` is tried, a key is made, and Ctrl-C ends it."""
    dev = Dev(home)
    try:
        dev.wait_until_serving()
        printed = dev.printed
        call = next(line for line in printed.splitlines() if " verify - < " in line)
        # From another folder, and without anything of our environment that the text does not name.
        bare = {"PATH": os.environ["PATH"], "HOME": str(home)} | {
            name: value for name, value in os.environ.items() if name.startswith("PYTHON")
        }
        pasted = subprocess.run(
            ["bash", "-c", call], env=bare, cwd="/", capture_output=True, text=True, timeout=SECONDS, check=False
        )
        second = run_command("dev", "--data-dir", str(dev.data), env=dev.env)
        modes = {name: stat.S_IMODE((dev.data / name).stat().st_mode) for name in ("pepper", "root.key")}
        env = dev.client_env()
        run_command("tenants", "create", "acme", env=env)
        run_command("keys", "create", "--tenant", "acme", "--key-file", str(home / "acme.key"), env=env)
        database_pid = dev.database_pid
        assert is_alive(database_pid)
        code = dev.interrupt()
        key_string = (home / "acme.key").read_text(encoding="ascii")
        yield FirstDay(
            printed, dev.logged, pasted, modes, second, key_string, code, database_pid, is_alive(database_pid)
        )
    finally:
        dev.clean_up()


@pytest.fixture
def next_start(home: Path, first_day: FirstDay) -> Iterator[Callable[[], Dev]]:
    """Starts it again in the folder of the first day."""
    started: list[Dev] = []

    def start() -> Dev:
        dev = Dev(home)
        started.append(dev)
        dev.wait_until_serving()
        return dev

    yield start
    for dev in started:
        dev.clean_up()


def test_it_says_where_it_listens_and_the_first_call_works_when_pasted(first_day: FirstDay) -> None:
    for name in ("VerifyService", "AdminService", "metrics"):
        assert re.search(rf"^  {name} +\S*127\.0\.0\.1:\d+", first_day.printed, re.MULTILINE)
    assert first_day.pasted.returncode == 0, first_day.pasted.stderr
    assert first_day.pasted.stdout.startswith("decision     allow\n")
    assert re.search(r"^permissions  \*, latchgate\.\*$", first_day.pasted.stdout, re.MULTILINE)


def test_its_secrets_are_for_their_owner_alone_and_never_printed(home: Path, first_day: FirstDay) -> None:
    pepper, root_key = ((home / "data" / name).read_text(encoding="ascii").strip() for name in ("pepper", "root.key"))

    assert first_day.modes == {"pepper": 0o600, "root.key": 0o600}
    for secret in (pepper, root_key.partition(".")[2]):
        assert secret not in first_day.printed + first_day.logged + first_day.pasted.stdout


def test_a_second_one_in_the_same_folder_is_refused(home: Path, first_day: FirstDay) -> None:
    assert first_day.second.returncode == 1
    assert first_day.second.stdout == ""
    assert first_day.second.stderr == f"latchgate: another `latchgate dev` is running in {(home / 'data').resolve()}\n"


def test_ctrl_c_stops_all_of_it(home: Path, first_day: FirstDay) -> None:
    assert first_day.code == 0
    assert not first_day.database_outlived
    assert not (home / "data" / "postgres" / "postmaster.pid").exists()


def test_the_next_start_finds_the_keys_of_the_first(
    next_start: Callable[[], Dev], first_day: FirstDay, home: Path
) -> None:
    root_key = (home / "data" / "root.key").read_text(encoding="ascii")

    dev = next_start()
    verified = run_command("verify", "-", env=dev.client_env(), stdin=first_day.key_string)
    listed = run_command("tenants", "list", env=dev.client_env())

    assert verified.returncode == 0, verified
    assert "acme" in listed.stdout
    assert (home / "data" / "root.key").read_text(encoding="ascii") == root_key
    assert dev.interrupt() == 0


def test_after_a_crash_the_next_start_takes_over_and_its_end_stops_the_database(
    next_start: Callable[[], Dev], first_day: FirstDay
) -> None:
    crashed = next_start()
    crashed.process.kill()
    crashed.process.wait()

    dev = next_start()
    verified = run_command("verify", "-", env=dev.client_env(), stdin=first_day.key_string)
    database_pid = dev.database_pid
    code = dev.interrupt()

    assert verified.returncode == 0, verified
    assert code == 0
    assert not is_alive(database_pid)
