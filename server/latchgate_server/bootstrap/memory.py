"""How much memory a process may have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from latchgate_server.config import Settings

_MOST = 0.8
"""The rest is for what comes in before anybody looks, and for who else shares the limit."""

_GROUPS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")


def memory_share(settings: Settings) -> int:
    """What each of our processes may take, in bytes, before strangers are sent away.

    Of the setting; without one, of what the container, the service manager or the machine allows.
    """
    limit = settings.memory_limit or min(_limits(_GROUPS, _MOUNT), default=0) or _machine()
    return int(_MOST * limit / settings.workers)


def _machine() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _limits(groups: Path, mount: Path) -> Iterator[int]:
    """Those of the control groups that this process is in, of either version, and of those around them."""
    with suppress(OSError):
        for line in groups.read_text(encoding="utf-8").splitlines():
            _, kinds, place = line.split(":", 2)
            if kinds == "":
                yield from _limits_along(mount, place, "memory.max")
            elif "memory" in kinds.split(","):
                yield from _limits_along(mount / "memory", place, "memory.limit_in_bytes")


def _limits_along(root: Path, place: str, name: str) -> Iterator[int]:
    """In a container, `place` may be what the host calls it: then only the root is there."""
    inner = PurePosixPath(place.lstrip("/"))
    for group in (inner, *inner.parents):
        with suppress(OSError, ValueError):  # not there, or `max`
            # What has no limit says so by a number beyond any machine's.
            yield min(int((root / group / name).read_text(encoding="ascii")), _machine())
