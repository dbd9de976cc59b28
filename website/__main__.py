"""`make docs`: lay the pages out and build the site."""

from __future__ import annotations

import subprocess
import sys

from website.pages import ROOT, BrokenLink, lay_out

BUILD = ROOT / "build"


def main() -> int:
    """The exit code."""
    try:
        lay_out(BUILD / "pages")
    except BrokenLink as error:
        print(f"make docs: {error}", file=sys.stderr)  # noqa: T201 - it reports to whoever ran it
        return 1
    config = ROOT / "zensical.toml"
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", str(config)]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
