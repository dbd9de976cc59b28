"""The README and docs/cli.md hold: their commands do what they show, their tables and links match the checkout."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer.main

from latchgate_server.cli import app, remote
from latchgate_server.config import Settings, load_settings
from tests.support.postgres import Postgres
from tests.support.server import ServerProcess, environment, make_root_key

ROOT = Path(__file__).resolve().parents[2]
README, CLI = ROOT / "README.md", ROOT / "docs" / "cli.md"

MARK = "=== the next command ==="
# What differs from run to run, each with what it is compared as.
MASKS = {
    r"\blg_[0-9A-Za-z]{22}\b": "KEY_ID",
    r"\b\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z": "TIME",
    r"\brevision \d+": "REVISION",
    r"\bwaited \d+ms": "WAITED",
    r'(?m)^( *"?etag"?:? +)"?\d+"?': r"\1ETAG",
    # Whether a use of the second before shows yet is a matter of luck, and with its name the width of the first column.
    r"(?m)^last use  .*\n": "",
    r"(?m)(?<=\S) {2,}": "  ",
}
NO_DEFAULT = {"database_url", "pepper", "pepper_file", "denials", "client_ip_header"}


@dataclass(frozen=True)
class Step:
    """A command and what it shows, standard output and error alike."""

    command: str
    shown: str


def transcript(document: Path) -> list[Step]:
    blocks = re.findall(r"^```console\n(.*?)^```", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    parts = [part for block in blocks for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    return [Step(command, shown) for command, _, shown in (part.partition("\n") for part in parts)]


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
            ["bash"],
            input=script,
            env=self.env,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        shown = done.stdout.split(f"{MARK}\n")[1:]
        return [Step(step.command, text) for step, text in zip(steps, shown, strict=True)]


def masked(steps: Sequence[Step]) -> list[Step]:
    found = []
    for step in steps:
        shown = step.shown
        for pattern, name in MASKS.items():
            shown = re.sub(pattern, name, shown)
        found.append(Step(step.command, shown))
    return found


@pytest.fixture(scope="module")
def shell(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell in a checkout beside which a server runs."""
    database_url = postgres.new_database()
    root_key = make_root_key(database_url)
    folder = tmp_path_factory.mktemp("checkout")
    (folder / ".latchgate").mkdir()
    (folder / ".latchgate" / "root.key").write_text(root_key + "\n", encoding="ascii")
    # Where the README's first line finds `latchgate`.
    (folder / ".venv").symlink_to(sys.prefix)
    with ServerProcess(database_url) as server:
        addresses = {
            "LATCHGATE_ADMIN_ADDRESS": server.admin_address,
            "LATCHGATE_VERIFY_ADDRESS": server.verify_address,
        }
        yield Shell(folder, environment("") | addresses)


@pytest.fixture(scope="module")
def readme_shown(shell: Shell) -> list[Step]:
    return shell.run(transcript(README))


def test_the_readme_shows_what_its_commands_do(readme_shown: list[Step]) -> None:
    steps = transcript(README)

    assert len(steps) == 8
    assert masked(readme_shown) == masked(steps)


def test_the_page_about_the_command_line_shows_what_its_commands_do(readme_shown: list[Step], shell: Shell) -> None:
    (shell.folder / "acme.key").unlink()
    first, *_ = transcript(README)
    steps = transcript(CLI)

    _, *shown = shell.run([first, *steps])

    assert len(steps) == 9
    assert masked(shown) == masked(steps)


def test_a_transcript_that_rots_is_noticed(readme_shown: list[Step]) -> None:
    rotten = [Step(step.command, step.shown.replace("disabled", "off")) for step in readme_shown]

    assert masked(rotten) != masked(transcript(README))


def test_the_first_screen_has_both_commands() -> None:
    screen = README.read_text(encoding="utf-8").splitlines()[:20]

    assert [line.split("#")[0].strip() for line in screen if line.startswith("    make ")] == ["make dev", "make test"]


def rows(document: Path) -> list[list[str]]:
    lines = document.read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines if line.startswith("| `")]


def test_the_table_of_settings_is_complete_and_shows_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "docs")  # away from a latchgate.toml
    shown = {
        name.removeprefix("LATCHGATE_").lower(): cells[1].strip("`")
        for cells in rows(README)
        for name in re.findall(r"LATCHGATE_\w+", cells[0])
    }

    assert set(shown) == set(Settings.model_fields)
    for name, default in shown.items():
        if name not in NO_DEFAULT:
            assert getattr(load_settings(**{name: default}), name) == Settings.model_fields[name].default, name


def test_the_page_about_the_command_line_names_every_command_and_variable() -> None:
    page = CLI.read_text(encoding="utf-8")
    commands = {cells[0].strip("`").removeprefix("latchgate "): cells[1] for cells in rows(CLI)}
    group = typer.main.get_group(app)

    for name, command in group.commands.items():
        if isinstance(command, type(group)):
            assert set(re.findall(r"`([a-z-]+)`", commands[name])) == set(command.commands), name
        else:
            assert re.search(rf"^\| `.*\b{name}`.*\|", page, re.MULTILINE), name
    for variable, default in remote.DEFAULTS.items():
        assert f"| `{variable}` | `{default}` |" in page
    for variable in (remote.ADMIN_KEY, remote.ADMIN_KEY_FILE):
        assert f"| `{variable}` | |" in page


@pytest.mark.parametrize("document", [README, CLI, ROOT / "CHANGELOG.md"], ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8"))

    assert [target for target in targets if not (document.parent / target).exists()] == []
