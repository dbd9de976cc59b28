"""`make supply`: whether all that comes with an installation of the server is under a licence that lets it be used.

What counts is requirements/server.lock, every extra included. Tools of developers are never shipped, and not looked at.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from supply import LOCK

ALLOWED = frozenset(
    {
        "3-Clause BSD License",
        "Apache Software License",
        "Apache-2.0",
        "Apache-2.0 AND BSD-2-Clause",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC License (ISCL)",
        "MIT",
        "MIT License",
        "MIT OR Apache-2.0",
        "MIT-0",
        "PSF-2.0",
    }
)
"""Permissive ones, as packages name them. Of several with a semicolon between, each has to be here."""

EXCEPTIONS: Mapping[str, str] = {
    "certifi": "MPL 2.0 binds those who change its files, which are certificates; we install them as they are",
}
"""Packages under another licence, and why they may be used all the same."""

ELSEWHERE: Mapping[str, str] = {
    "async-timeout": "Apache-2.0; for Python before 3.11.3",
    "colorama": "BSD-3-Clause; for Windows",
}
"""Packages of the lock that other systems install than the one this runs on, and what they say of themselves."""


def locked(lock: Path = LOCK) -> list[str]:
    """The names of all packages of a lock."""
    return re.findall(r"^([A-Za-z0-9._-]+)==", lock.read_text(encoding="utf-8"), re.MULTILINE)


def problems(found: Mapping[str, str], wanted: Iterable[str]) -> list[str]:
    """What is wrong, one line each.

    found: licences by package. wanted: the packages that must have one.
    """
    lines = []
    for name in sorted(set(wanted) - (ELSEWHERE.keys() - found.keys())):
        licence = found.get(_plain(name))
        if licence is None:
            lines.append(f"{name}: not installed, so its licence is unknown")
        elif not {part.strip() for part in licence.split(";")} <= ALLOWED and name not in EXCEPTIONS:
            lines.append(f"{name}: {licence}; allow it in supply/licences.py, or make an exception with its reason")
    stale = sorted(set(EXCEPTIONS) - set(wanted))
    return [*lines, *(f"{name}: an exception for a package that is not locked any more" for name in stale)]


def installed(names: Iterable[str]) -> dict[str, str]:
    """The licences of these packages, by their plain names, as pip-licenses reads them."""
    command = [sys.executable, "-m", "piplicenses", "--format=json", "--from=mixed", "--packages", *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {_plain(package["Name"]): package["License"] for package in json.loads(done.stdout)}


def _plain(name: str) -> str:
    """A package's name as all its spellings are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> int:
    """The exit code."""
    names = locked()
    found = problems(installed(names), names)
    for line in found:
        print(line, file=sys.stderr)
    if not found:
        print(f"{len(names)} packages, all under licences that supply/licences.py allows")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
