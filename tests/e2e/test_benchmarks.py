"""The benchmark still runs: it is started by hand, and would rot unnoticed."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.report import Figure, table
from benchmarks.rows import ROWS

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-m", "benchmarks", "--keys", "20", "--rounds", "1", "--seconds", "0.3"]


def bench(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, timeout=100, check=False
    )


needs_h2load = pytest.mark.skipif(
    shutil.which("h2load") is None, reason="h2load is not installed: apt-get install nghttp2-client"
)


@needs_h2load
def test_verify_is_measured_against_the_floor(tmp_path: Path) -> None:
    done = bench("--rows", "floor,verify,coalesce", "--output", str(tmp_path), "--name", "quick")

    # 1: a row does not reach what it should, which so short a run cannot tell.
    assert done.returncode in (0, 1), done.stderr
    assert "Verify on native" in done.stdout
    written = json.loads((tmp_path / "quick.json").read_text())
    assert [figure["row"] for figure in written["figures"]] == ["floor", "floor", "verify", "verify", "coalesce"]
    assert all(figure["value"] > 0 for figure in written["figures"])
    assert written["machine"]["commit"]


@needs_h2load
def test_what_was_finished_is_kept_where_a_run_is_interrupted(tmp_path: Path) -> None:
    command = [*COMMAND, "--rounds", "1000", "--rows", "start,floor", "--output", str(tmp_path), "--name", "ended"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if "making 20 keys" in line:
                break
        running.send_signal(signal.SIGINT)
        printed, told = running.communicate(timeout=60)

    assert running.returncode == 130, told
    assert "interrupted; not measured: floor" in told
    assert "Traceback" not in told
    assert [line.split()[0] for line in printed.strip().split("\n\n")[0].splitlines()] == ["row", "start"]
    written = json.loads((tmp_path / "ended.json").read_text())
    assert [figure["row"] for figure in written["figures"]] == ["start"]


def test_where_h2load_is_missing_it_says_how_to_get_it(tmp_path: Path) -> None:
    done = bench("--rows", "floor", "--output", str(tmp_path), env={"PATH": "", "HOME": str(tmp_path)})

    assert done.returncode == 1
    assert "apt-get install nghttp2-client" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_row_that_does_not_exist_is_refused() -> None:
    done = bench("--rows", "floor,nothing")

    assert done.returncode == 2
    assert all(row in done.stderr for row in ROWS)


def test_the_table_is_aligned_and_says_what_was_not_reached() -> None:
    lines = table(
        [
            Figure("verify", "rate", 0.9, "", "at least 0.80", True),
            Figure("start", "to SERVING", 1_500.0, "ms", "1,000 ms", False, "cold"),
        ]
    ).splitlines()

    assert lines[1].split() == ["verify", "rate", "0.90", "at", "least", "0.80", "yes"]
    assert lines[2].split() == ["start", "to", "SERVING", "1,500", "ms", "1,000", "ms", "NO", "cold"]
    assert lines[1].index("at least") == lines[2].index("1,000 ms")
