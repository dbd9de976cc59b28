"""What the server is made of: locked with hashes, under allowed licences, in a bill of materials, looked after."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from supply.bill import write
from supply.licences import ALLOWED, EXCEPTIONS, installed, locked, problems

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_locked_package_has_one_version_and_hashes(lock: Path) -> None:
    entries = re.split(r"^(?=[A-Za-z0-9])", lock.read_text(encoding="utf-8"), flags=re.MULTILINE)
    packages = [entry for entry in entries if not entry.startswith("#")]
    assert packages
    for package in packages:
        assert re.match(r"[A-Za-z0-9._\[\],-]+==\S+", package), package[:80]
        assert "--hash=sha256:" in package, package[:80]


def test_everything_that_is_shipped_is_under_a_licence_that_we_allow() -> None:
    names = locked()
    assert problems(installed(names), names) == []


def test_another_licence_and_a_missing_package_are_found() -> None:
    assert problems(
        {"a": "GPL-3.0-only", "b": "MIT; GPL-3.0-only", "certifi": "MPL-2.0"}, ["a", "b", "c", "certifi"]
    ) == [
        "a: GPL-3.0-only; allow it in supply/licences.py, or make an exception with its reason",
        "b: MIT; GPL-3.0-only; allow it in supply/licences.py, or make an exception with its reason",
        "c: not installed, so its licence is unknown",
    ]
    assert not any("GPL" in licence for licence in ALLOWED)
    assert all(len(reason) > 20 for reason in EXCEPTIONS.values())


def test_the_bill_of_materials_names_every_locked_package_with_its_hashes(tmp_path: Path) -> None:
    bill = json.loads(write(tmp_path / "sbom.json").read_text(encoding="utf-8"))
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "latchgate-server"
    components = {component["name"]: component for component in bill["components"]}
    assert set(components) == set(locked())
    for name, component in components.items():
        assert component["purl"].startswith(f"pkg:pypi/{name}@")
        [distribution] = component["externalReferences"]
        assert {digest["alg"] for digest in distribution["hashes"]} == {"SHA-256"}
    assert (tmp_path / "sbom.json").read_bytes() == write(tmp_path / "again.json").read_bytes()


def test_dependabot_looks_after_every_folder_that_names_dependencies() -> None:
    told = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8"))
    assert told["version"] == 2
    looked_after: dict[str, set[str]] = {}
    for update in told["updates"]:
        assert update["package-ecosystem"] in ("pip", "docker")
        assert update["schedule"]["interval"] in ("daily", "weekly", "monthly")
        folders = update.get("directories", [update.get("directory")])
        looked_after.setdefault(update["package-ecosystem"], set()).update(folders)
    for folder in looked_after["pip"]:
        there = [path.name for path in (ROOT / folder.strip("/")).iterdir()]
        assert any(name == "pyproject.toml" or name.endswith(".in") for name in there), folder
    named = {path.parent for pattern in ("*/pyproject.toml", "*/*.in") for path in ROOT.glob(pattern)}
    assert {f"/{path.relative_to(ROOT)}" for path in named} == looked_after["pip"]
    assert (ROOT / "Dockerfile").exists()
