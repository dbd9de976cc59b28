"""What the operating system says of processes, and what a figure was measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PACKAGES = ("latchgate-server", "grpcio", "pygrpc-native", "protobuf", "uvloop", "asyncpg", "argon2-cffi")


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time that the processes have taken so far, in user and kernel, by all of their threads."""
    total = 0
    for pid in pids:
        # After the program's name, which may hold anything: state is field 3, utime and stime are 14 and 15 (proc(5)).
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def resident_bytes(pid: int) -> int:
    """Memory of the process that is not swapped out."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE


def described(root: Path) -> dict[str, object]:
    """The machine, the versions and the commit. root: of the checkout."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git(root, "rev-parse", "HEAD"),
        "changed": bool(_git(root, "status", "--porcelain")),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * _PAGE,
        "system": platform.platform(),
        "python": platform.python_version(),
        "servers": "compiled" if "SERVER_PATH" in os.environ else "interpreted",
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)  # noqa: S607 - whichever git made the checkout
    except OSError:
        return ""
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
