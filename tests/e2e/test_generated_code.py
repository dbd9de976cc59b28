"""The generated code that is committed is what `make gen` makes of the protos."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
PACKAGES = ("latchgate/v1", "latchgate/envoy/v1", "latchgate/rpc/v1")


def generated(root: Path) -> dict[str, bytes]:
    files = [file for package in PACKAGES for file in (root / package).glob("*_pb2*")]
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


def test_generating_anew_changes_nothing(tmp_path: Path) -> None:
    command = [sys.executable, str(CHECKOUT / "protos" / "generate.py"), "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    made, committed = generated(tmp_path), generated(CHECKOUT / "client")
    assert made.keys() == committed.keys()
    assert [name for name in made if made[name] != committed[name]] == []
