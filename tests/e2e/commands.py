"""`latchgate` as an administrator calls it: as a process, with pipes or on a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.support.quick_cli import quick_latchgate
from tests.support.server import run_command

DONE, FAILED, USAGE, DENIED = 0, 1, 2, 3
TRAVELLED = re.compile(r"revision \d+, confirmed by replicas: \d+(, leases expired: \d+)?, waited \d+ms\n")
KEY_STRING = re.compile(r"\w+_[0-9A-Za-z]{22}\.[0-9A-Za-z]{49}")
KEY_ID = re.compile(r"\w+_[0-9A-Za-z]{22}")
AT_ONCE = 4


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def told(self) -> dict[str, str]:
        """The names and values of a table that tells of one thing."""
        pairs = [re.split(r" {2,}", line, maxsplit=1) for line in self.out.splitlines()]
        return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


@dataclass(frozen=True)
class Cli:
    """`latchgate` as an administrator calls it. Whatever it prints is searched for the administrator's own secret."""

    env: dict[str, str]
    secret: str

    def __call__(self, *arguments: str, code: int = DONE, stdin: str = "", **env: str) -> Ran:
        done = run_command(*arguments, env=self.env | env, stdin=stdin)
        assert done.returncode == code, (arguments, done)
        assert self.secret not in done.stdout + done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)

    def both(self, *arguments: str) -> tuple[Ran, Any]:
        """Run a command that changes nothing, or nothing the second time, as a table and as JSON."""
        table, written = at_once([lambda: self(*arguments), lambda: self(*arguments, "--output", "json")])
        return table, written.json


def at_once(commands: Sequence[Callable[[], Ran]]) -> list[Ran]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [running.result() for running in [pool.submit(command) for command in commands]]


def run(*arguments: str, env: Mapping[str, str], code: int = DONE, stdin: str = "") -> str:
    """The standard output of a command, or its standard error where it fails."""
    done = run_command(*arguments, env=env, stdin=stdin)
    assert done.returncode == code, done
    return done.stdout if code == DONE else done.stderr


def make_key(env: Mapping[str, str], path: Path, *options: str) -> str:
    """Make a key of the tenant `acme`, with its key string in a file; its id."""
    return run("keys", "create", "--tenant", "acme", "--key-file", str(path), *options, env=env).strip()


@dataclass(frozen=True)
class MadeKey:
    key_id: str
    key_string: str


class NewKey(Protocol):
    """Makes a key in the tenant for tests about keys, with these options."""

    def __call__(self, *options: str) -> MadeKey: ...


@dataclass(frozen=True)
class OnTerminal:
    code: int
    shown: str


def on_terminal(cli: Cli, *arguments: str, typed: str = "", columns: int = 80) -> OnTerminal:
    """Run a command on a terminal of its own, and type once it has asked something."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [str(quick_latchgate()), *arguments],
        env=cli.env | {"COLUMNS": str(columns), "TERM": "xterm-256color"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    shown = b""
    try:
        while True:
            try:
                piece = os.read(master, 65_536)
            except OSError:  # what Linux gives once nobody has the other end any more
                break
            shown += piece
            if typed and shown.endswith(b": "):
                os.write(master, typed.encode() + b"\n")
                typed = ""
            if not piece:
                break
        return OnTerminal(process.wait(30), shown.decode().replace("\r\n", "\n"))
    finally:
        process.kill()
        process.wait()
        os.close(master)
