"""The documents hold: their commands do what they show, their tables and links match the checkout."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from latchgate_server.cli import application, remote
from latchgate_server.config import Settings, load_settings
from tests.support.postgres import Postgres
from tests.support.transcripts import Desk, Shell, Step, desk, masked, run_document, transcript

ROOT = Path(__file__).resolve().parents[2]
README, CLI = ROOT / "README.md", ROOT / "docs" / "cli.md"
SETTINGS = ROOT / "docs" / "reference" / "settings.md"
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))

NO_DEFAULT = {
    *("database_url", "pepper", "pepper_file", "denials", "client_ip_header", "memory_limit"),
    *("tls_cert", "tls_key", "tls_client_ca"),
}


@pytest.fixture(scope="module")
def desk_(postgres: Postgres) -> Iterator[Desk]:
    """A server that the commands of every document go to."""
    folder = Path(tempfile.mkdtemp(prefix="latchgate-"))
    try:
        with desk(postgres, folder) as made:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def shell(desk_: Desk) -> Shell:
    """A shell in a checkout beside which the server runs."""
    return desk_.shell("checkout")


@pytest.fixture(scope="module")
def readme_shown(shell: Shell) -> list[Step]:
    return shell.run(transcript(README))


def test_the_readme_shows_what_its_commands_do(readme_shown: list[Step]) -> None:
    steps = transcript(README)

    assert len(steps) == 8
    assert masked(readme_shown) == masked(steps)


def test_the_page_about_the_command_line_shows_what_its_commands_do(readme_shown: list[Step], shell: Shell) -> None:
    (shell.folder / "acme.key").unlink()
    steps = transcript(CLI)

    shown = run_document(shell, CLI)

    assert len(steps) == 9
    assert masked(shown) == masked(steps)


@pytest.mark.parametrize("document", GUIDES, ids=lambda path: path.stem)
def test_a_guide_shows_what_its_commands_do(desk_: Desk, document: Path) -> None:
    """`python -m tests.support.transcripts DOCUMENT` writes what they show anew."""
    assert masked(run_document(desk_.shell(document.stem), document)) == masked(transcript(document))


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
        for cells in rows(SETTINGS)
        for name in re.findall(r"LATCHGATE_\w+", cells[0])
    }

    assert set(shown) == set(Settings.model_fields)
    for name, default in shown.items():
        if name not in NO_DEFAULT:
            assert getattr(load_settings(**{name: default}), name) == Settings.model_fields[name].default, name


def test_the_page_about_the_command_line_names_every_command_and_variable() -> None:
    page = CLI.read_text(encoding="utf-8")
    commands = {cells[0].strip("`").removeprefix("latchgate "): cells[1] for cells in rows(CLI)}
    group = typer.main.get_group(application())

    for name, command in group.commands.items():
        if isinstance(command, type(group)):
            assert set(re.findall(r"`([a-z-]+)`", commands[name])) == set(command.commands), name
        else:
            assert re.search(rf"^\| `.*\b{name}`.*\|", page, re.MULTILINE), name
    for variable, default in remote.DEFAULTS.items():
        assert f"| `{variable}` | `{default}` |" in page
    for variable in (remote.ADMIN_KEY, remote.ADMIN_KEY_FILE):
        assert f"| `{variable}` | |" in page


@pytest.mark.parametrize(
    "document", [README, ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")], ids=lambda path: path.name
)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8"))

    assert [target for target in targets if not (document.parent / target).exists()] == []
