"""The code of the version before, out of the project's history: the newest that does not know today's last migration.

It is run by the interpreter that runs the tests, with the libraries of today.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("server/latchgate_server", "client/latchgate")
MIGRATIONS = f"{PACKAGES[0]}/storage/migrations"


class NoHistoryError(Exception):
    """There is none that goes back far enough; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class OldVersion:
    """An old version's code. newest_migration: that it knows. folders: where its packages are."""

    commit: str
    newest_migration: int
    folders: tuple[Path, ...]

    @property
    def variables(self) -> Mapping[str, str]:
        """What the environment of a process needs for it to run this code."""
        # Nothing would ever use what is compiled of a folder that only this run of the tests has.
        return {"PYTHONPATH": os.pathsep.join(map(str, self.folders)), "PYTHONDONTWRITEBYTECODE": "1"}

    def loaded(self) -> list[Path]:
        """Where a process takes the packages from that are found by these variables."""
        told = (
            "import latchgate.v1.key_pb2 as stubs, latchgate_server as server; print(server.__file__, stubs.__file__)"
        )
        done = subprocess.run(
            [sys.executable, "-c", told], env=os.environ | self.variables, capture_output=True, text=True, check=True
        )
        return [Path(file) for file in done.stdout.splitlines()]


def unpack(folder: Path, checkout: Path = ROOT) -> OldVersion:
    """Write the code into a folder. Raises NoHistoryError."""
    commit, newest_migration = find(checkout)
    with zipfile.ZipFile(io.BytesIO(_git(checkout, "archive", "--format=zip", commit, *PACKAGES))) as archive:
        archive.extractall(folder)
    return OldVersion(commit, newest_migration, tuple((folder / package).parent for package in PACKAGES))


def find(checkout: Path = ROOT) -> tuple[str, int]:
    """The newest commit whose migrations are the first of today's, but not all, by their content; and how many.

    A commit in which one of them had another content is none: databases that it made are refused today.
    Raises NoHistoryError.
    """
    files = sorted(path.relative_to(checkout) for path in (checkout / MIGRATIONS).glob("*.sql"))
    for commit in _states(checkout):
        then = _migrations(checkout, commit)
        if 0 < len(then) < len(files) and list(then) == [file.name for file in files[: len(then)]]:
            today = _git(checkout, "hash-object", *map(str, files[: len(then)])).decode().split()
            if list(then.values()) == today:
                return commit, len(then)
    if _git(checkout, "rev-parse", "--is-shallow-repository") == b"true\n":
        raise NoHistoryError("this clone has only the end of the project's history: git fetch --unshallow")
    raise NoHistoryError("the history has no version whose migrations are the first ones of today's")


def _states(checkout: Path) -> Iterator[str]:
    """Every commit after which the migrations changed, the newest first."""
    yield _git(checkout, "rev-parse", "HEAD").decode().strip()
    for line in _git(checkout, "log", "--format=%P", "--", MIGRATIONS).decode().splitlines():
        yield from line.split()[:1]


def _migrations(checkout: Path, commit: str) -> dict[str, str]:
    """Their names and Git's digests of their content, in order."""
    lines = _git(checkout, "ls-tree", commit, f"{MIGRATIONS}/").decode().splitlines()
    entries = [line.split() for line in lines if line.endswith(".sql")]
    return {Path(name).name: digest for _, _, digest, name in sorted(entries, key=lambda entry: entry[3])}


def _git(checkout: Path, *arguments: str) -> bytes:
    try:
        return subprocess.run(["git", "-C", str(checkout), *arguments], capture_output=True, check=True).stdout
    except FileNotFoundError as error:
        raise NoHistoryError("git is not installed, and with it the project's history cannot be read") from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip()
        raise NoHistoryError(f"the project's history is not here, only its files: {reason}") from error
