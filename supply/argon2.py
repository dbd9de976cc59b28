"""Argon2 for the processor that it will run on: `python -m supply.argon2 FOLDER` puts `_argon2_cffi_bindings` there.

The wheel of argon2-cffi-bindings has Argon2 for the oldest 64-bit processors alone, though its sources know the
instructions of later ones and take less than half of the time with them. Here the same locked sources become a shared
library for each generation (the x86-64 psABI's levels, https://gitlab.com/x86-psABIs/x86-64-ABI), and glibc's dynamic
loader takes the best that the processor can run ("glibc-hwcaps", ld.so(8)).

On other machines than x86-64 with glibc there is nothing to choose from, so nothing is done.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from supply import LOCK

PACKAGE = "_argon2_cffi_bindings"
LIBRARY = "libargon2.so.1"
LEVELS = {
    "x86-64": "",
    "x86-64-v3": "glibc-hwcaps/x86-64-v3",  # AVX2
    "x86-64-v4": "glibc-hwcaps/x86-64-v4",  # AVX-512
}
"""The builds, and where the loader looks for each, from the folder that the package is in."""

_SOURCES = ("argon2", "core", "encoding", "thread", "blake2/blake2b", "opt")
"""What the bindings' own CMakeLists.txt builds with SSE2, which each level has."""


def is_of_use() -> bool:
    """Whether this machine's loader has a choice."""
    return platform.machine() == "x86_64" and platform.libc_ver()[0] == "glibc"


def build(folder: Path) -> None:
    """Build the package into the folder, over what may be there. Needs a C compiler and pip."""
    package = folder / PACKAGE
    with tempfile.TemporaryDirectory() as name:
        root = _unpacked(Path(name))
        argon2, bindings = root / "extras" / "libargon2", root / "src" / PACKAGE
        sources = [argon2 / "src" / f"{source}.c" for source in _SOURCES]
        for level, place in LEVELS.items():
            library = package / place / LIBRARY
            library.parent.mkdir(parents=True, exist_ok=True)
            _compile(library, sources, argon2, (f"-march={level}", "-pthread", f"-Wl,-soname,{LIBRARY}"))
        python = f"-I{sysconfig.get_path('include')}"
        linked = (bindings / "_ffi.c", package / LIBRARY)
        _compile(package / "_ffi.abi3.so", linked, argon2, (python, "-Wl,-rpath,$ORIGIN"))
        (package / "__init__.py").write_bytes((bindings / "__init__.py").read_bytes())


def _unpacked(folder: Path) -> Path:
    """The sources that the lock names, checked against its hashes."""
    pinned = re.search(r"^argon2-cffi-bindings==(?:.*\\\n)*.*\n", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned is not None
    (folder / "pinned").write_text(pinned[0], encoding="utf-8")
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download")
    what = ("--require-hashes", "--no-deps", "--no-binary", ":all:", "--requirement", str(folder / "pinned"))
    # Without isolation: what pip asks for the name of the sources comes from requirements/compile.lock.
    _run([*pip, *what, "--no-build-isolation", "--dest", str(folder)])
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as sources:
        sources.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def _compile(output: Path, inputs: Sequence[Path], argon2: Path, options: Sequence[str]) -> None:
    always = ("-O3", "-DNDEBUG", "-fPIC", "-shared", f"-I{argon2 / 'include'}")
    _run(["cc", *always, *options, "-o", str(output), *map(str, inputs)])


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{done.stdout}\n{' '.join(command[:4])} … failed")


if __name__ == "__main__":
    if is_of_use():
        build(Path(sys.argv[1]))
