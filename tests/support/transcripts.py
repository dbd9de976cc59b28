"""Documents with commands and what they show: running them, comparing, and writing what they show anew.

    python -m tests.support.transcripts docs/guides/keys.md …

runs the commands of each document against a server of its own and puts what they showed in place of what stood there.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from latchgate_server.embedded import running_postgres
from tests.support.postgres import Postgres
from tests.support.quick_cli import quick_latchgate
from tests.support.server import ServerProcess, environment, make_root_key

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
SECONDS = 100
MARK = "=== the next command ==="
# What differs from run to run, each with what it is compared as.
MASKS = {
    # Uses are known to lists and to `get` a second later.
    r"(?m)^last use .*\n": "",
    r"\b[a-z][a-z0-9_]*_[0-9A-Za-z]{22}\b": "KEY_ID",
    r"\b\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z": "TIME",
    r"\b\d+[smhd] ago\b": "AGO",
    r"\brevision \d+": "REVISION",
    r"\bwaited \d+ms": "WAITED",
    r'(?m)^( *"?etag"?:? +)"?\d+"?': r"\1ETAG",
    r"(?m)^\d+(?= +TIME)": "NUMBER",
    # A column is as wide as its widest cell.
    r" {2,}": "  ",
}
_TRAVELLED = re.compile(r"(?m)^REVISION, .*\n")
_BLOCK = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"\$ ((?:.*\\\n)*.*)\n?")


@dataclass(frozen=True)
class Step:
    """A command and what it shows, standard output and error alike."""

    command: str
    shown: str


def steps_of(text: str) -> list[Step]:
    """The steps in a console block, or in all blocks of a document."""
    parts = [part for block in _BLOCK.findall(text) for part in re.split(r"^(?=\$ )", block, flags=re.MULTILINE)]
    matches = [(part, _COMMAND.match(part)) for part in parts]
    return [Step(match.group(1), part[match.end() :]) for part, match in matches if match]


def transcript(document: Path) -> list[Step]:
    """The steps of a document."""
    return steps_of(document.read_text(encoding="utf-8"))


def masked(steps: Sequence[Step]) -> list[Step]:
    """The steps without what differs from run to run."""
    found = []
    for step in steps:
        shown = step.shown
        for pattern, name in MASKS.items():
            shown = re.sub(pattern, name, shown)
        # Behind a pipe, which of standard output and error comes first is a matter of luck.
        travelled = "".join(_TRAVELLED.findall(shown))
        shown = _TRAVELLED.sub("", shown) + travelled
        found.append(Step(step.command, shown))
    return found


@dataclass(frozen=True)
class Shell:
    """Where somebody types: a folder, and the environment of a shell."""

    folder: Path
    env: Mapping[str, str]

    def run(self, steps: Sequence[Step]) -> list[Step]:
        """Run all commands in one shell and return what they showed."""
        # Between two commands stands a mark, and `$?` stays what the command before has left.
        script = "".join(f"status=$?\necho '{MARK}'\n(exit $status)\n{step.command}\n" for step in steps)
        done = subprocess.run(
            ["bash", "-c", script],
            stdin=subprocess.DEVNULL,
            env=self.env,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        shown = done.stdout.split(f"{MARK}\n")[1:]
        return [Step(step.command, text) for step, text in zip(steps, shown, strict=True)]


@dataclass(frozen=True)
class Desk:
    """A server, and shells in checkouts beside which it runs. folder: for the checkouts; bin: where `latchgate` is."""

    folder: Path
    bin: Path
    root_key: str
    env: Mapping[str, str]

    def shell(self, name: str) -> Shell:
        """A shell in a checkout of its own."""
        checkout = self.folder / name
        (checkout / ".latchgate").mkdir(parents=True)
        (checkout / ".latchgate" / "root.key").write_text(self.root_key + "\n", encoding="ascii")
        # Where the README's first line finds `latchgate`.
        (checkout / ".venv").mkdir()
        (checkout / ".venv" / "bin").symlink_to(self.bin)
        return Shell(checkout, self.env)


@contextmanager
def desk(postgres: Postgres, folder: Path) -> Iterator[Desk]:
    """A server with a database of its own, and room for shells below `folder`, whose path is short."""
    database_url = postgres.new_database()
    root_key = make_root_key(database_url)
    with ServerProcess(database_url) as server:
        addresses = {
            "LATCHGATE_ADMIN_ADDRESS": server.admin_address,
            "LATCHGATE_VERIFY_ADDRESS": server.verify_address,
        }
        yield Desk(folder, quick_latchgate().parent, root_key, environment(database_url) | addresses)


def run_document(shell: Shell, document: Path) -> list[Step]:
    """What the commands of a document show in a shell where the README's first command was given."""
    first, *_ = transcript(README)
    _, *shown = shell.run([first, *transcript(document)])
    return shown


def renewed(text: str, shown: Sequence[Step]) -> str:
    """The document, with what its commands showed."""
    rest = iter(shown)

    def block(match: re.Match[str]) -> str:
        steps = [next(rest) for _ in steps_of(match.group(0))]
        return "```console\n" + "".join(f"$ {step.command}\n{step.shown}" for step in steps) + "```"

    return _BLOCK.sub(block, text)


@contextmanager
def own_desk() -> Iterator[Desk]:
    """A desk with a PostgreSQL and a folder of its own, for what runs outside of the tests."""
    folder = Path(tempfile.mkdtemp(prefix="latchgate-"))
    try:
        with running_postgres(folder / "postgres") as url:
            postgres = Postgres(url)
            postgres.make_template()
            with desk(postgres, folder) as made:
                yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(documents: Sequence[str]) -> None:
    """Write the documents anew."""
    with own_desk() as made:
        for name in documents:
            document = Path(name)
            shown = run_document(made.shell(document.stem), document)
            document.write_text(renewed(document.read_text(encoding="utf-8"), shown), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
