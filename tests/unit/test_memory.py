"""How much memory a process may take, of what somebody else allows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from latchgate_server.bootstrap import memory
from latchgate_server.config import Settings

MEBIBYTE = 2**20


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of Linux's control groups, where the process is in `/a/b` by either version."""
    (tmp_path / "self").write_text("4:cpu,memory:/a/b\n0::/a/b\n")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "self")
    monkeypatch.setattr(memory, "_MOUNT", tmp_path)
    return tmp_path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_it_is_four_fifths_of_the_setting_shared_by_the_workers(groups: Path) -> None:
    write(groups / "a/b/memory.max", str(100 * MEBIBYTE))
    assert memory.memory_share(Settings(memory_limit=1024 * MEBIBYTE, workers=2)) == int(0.4 * 1024 * MEBIBYTE)


@pytest.mark.parametrize(
    ("file", "around"),
    [
        ("a/b/memory.max", "memory.max"),
        ("a/memory.max", "a/b/memory.max"),
        ("memory.max", "a/memory.max"),
        ("memory/a/b/memory.limit_in_bytes", "memory/memory.limit_in_bytes"),
        ("memory/memory.limit_in_bytes", "memory/a/memory.limit_in_bytes"),
    ],
)
def test_without_one_the_least_that_any_group_allows_counts(groups: Path, file: str, around: str) -> None:
    write(groups / file, f"{500 * MEBIBYTE}\n")
    write(groups / around, f"{600 * MEBIBYTE}\n")
    assert memory.memory_share(Settings()) == int(0.8 * 500 * MEBIBYTE)


@pytest.mark.parametrize("nothing", ["max\n", f"{2**63 - 4096}\n", None])
def test_without_any_the_machine_counts(groups: Path, nothing: str | None) -> None:
    if nothing is not None:
        write(groups / "a/b/memory.max", nothing)
    assert memory.memory_share(Settings()) == int(0.8 * memory._machine())
