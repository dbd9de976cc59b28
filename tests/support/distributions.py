"""Both distributions, built as they are published, and environments that hold one of them and what it asks for."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def build(folder: str, to: Path) -> tuple[Path, Path]:
    """Build a distribution; returns its sdist, and the wheel that was made of the sdist."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(to), str(ROOT / folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    (sdist,), (wheel,) = to.glob("*.tar.gz"), to.glob("*.whl")
    return sdist, wheel


def environment_with(wheel: Path, folder: Path) -> Path:
    """The Python of a new environment with the wheel and what it asks for, and nothing else. Needs no network.

    What it asks for is copied from the environment of the tests, where it was installed from a registry.
    """
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    uv = [str(Path(sys.executable).with_name("uv")), "pip"]
    install = [*uv, "install", "--quiet", "--offline", "--no-index", "--no-deps", "--python", str(python), str(wheel)]
    subprocess.run(install, check=True, capture_output=True, timeout=60)
    libraries = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    name = wheel.name.split("-")[0]
    metadata = next(libraries.glob(f"{name}-*.dist-info")) / "METADATA"
    wanted = re.findall(r"(?m)^Requires-Dist: ([A-Za-z0-9._-]+)(?!.*extra ==)", metadata.read_text(encoding="utf-8"))
    for requirement in wanted:
        _copy(requirement, libraries)
    subprocess.run([*uv, "check", "--python", str(python)], check=True, capture_output=True, timeout=60)
    return python


def _copy(name: str, to: Path) -> None:
    """Copy a distribution and what it asks for."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return  # for another system; `uv pip check` would miss what this one needs
    for file in found.files or ():
        source, target = Path(str(found.locate_file(file))), to / file
        if ".." not in file.parts and "__pycache__" not in file.parts and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    for requirement in found.requires or ():
        if "extra ==" not in requirement:
            _copy(re.split(r"[^A-Za-z0-9._-]", requirement)[0], to)
