"""`make supply`: the bill of materials of the server, as CycloneDX JSON, out of what is locked: `build/sbom.cdx.json`.

The same lock gives the same bytes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from supply import LOCK, ROOT

BILL = ROOT / "build" / "sbom.cdx.json"


def write(path: Path = BILL) -> Path:
    """Write it, checked against CycloneDX's schema, and return where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "cyclonedx_py", "requirements", str(LOCK)),
        *("--pyproject", str(ROOT / "server" / "pyproject.toml"), "--sv", "1.6", "--of", "JSON"),
        *("--output-reproducible", "-o", str(path)),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return path


if __name__ == "__main__":
    print(write().relative_to(ROOT))
