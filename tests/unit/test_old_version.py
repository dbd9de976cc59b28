"""Which commit is the version before: the newest whose migrations are, to the letter, the first ones of today's."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.old_version import MIGRATIONS, NoHistoryError, find

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

FIRST, SECOND, THIRD = {"0001_a.sql": "a"}, {"0001_a.sql": "a", "0002_b.sql": "b"}, {"0003_c.sql": "c"}


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    done: subprocess.CompletedProcess[str] = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def write(checkout: Path, files: Mapping[str, str]) -> None:
    folder = checkout / MIGRATIONS
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def commit(checkout: Path, files: Mapping[str, str], note: str = "") -> str:
    """A commit with these migrations, and another file that says this."""
    write(checkout, files)
    (checkout / "note").write_text(note, encoding="utf-8")
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "--allow-empty", "--message", "x")
    return git(checkout, "rev-parse", "HEAD")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    made = tmp_path / "checkout"
    git(tmp_path, "init", "--quiet", str(made))
    return made


def test_it_is_the_last_commit_before_the_newest_migration_came(checkout: Path) -> None:
    commit(checkout, FIRST)
    commit(checkout, SECOND)
    before = commit(checkout, {}, "later")
    commit(checkout, THIRD)
    commit(checkout, {}, "later still")
    assert find(checkout) == (before, 2)


def test_with_a_migration_that_is_not_committed_yet_it_is_the_last_commit(checkout: Path) -> None:
    commit(checkout, FIRST)
    before = commit(checkout, {}, "later")
    write(checkout, SECOND)
    assert find(checkout) == (before, 1)


def test_a_commit_in_which_a_migration_said_something_else_is_passed_over(checkout: Path) -> None:
    before = commit(checkout, FIRST)
    commit(checkout, SECOND | {"0001_a.sql": "edited"})
    commit(checkout, SECOND | THIRD)
    assert find(checkout) == (before, 1)


def test_what_is_missing_is_said(checkout: Path, tmp_path: Path) -> None:
    commit(checkout, FIRST)
    commit(checkout, SECOND)
    git(tmp_path, "clone", "--quiet", "--depth=1", checkout.as_uri(), "shallow")
    with pytest.raises(NoHistoryError, match="git fetch --unshallow"):
        find(tmp_path / "shallow")
    shutil.rmtree(tmp_path / "shallow/.git")
    with pytest.raises(NoHistoryError, match="not a git repository"):
        find(tmp_path / "shallow")
