"""SECURITY.md names a test for each threat; each of them exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", TEXT)))
TARGETS = re.findall(r"`make ([a-z-]+)", TEXT)
# What only an operator can see to says so in its row.
OPERATORS = ("not prevented", "`make audit`")


def test_tests_are_named() -> None:
    assert len(NAMED) > 30


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_test_that_is_named_exists(file: str, name: str) -> None:
    code = (ROOT / file).read_text(encoding="utf-8")
    assert re.search(rf"^(async )?def {name or 'test_'}", code, re.MULTILINE)


def test_every_threat_is_met_by_a_test_or_a_measure_that_is_run() -> None:
    rows = [line for line in TEXT.partition("## Threats")[2].splitlines() if re.match(r"\| [a-z*]", line)]
    threats = [row for row in rows if not row.startswith("| threat ")]
    assert len(threats) > 30
    for row in threats:
        assert "tests/" in row or "`make " in row or any(word in row for word in OPERATORS), row


def test_a_command_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {target for target in TARGETS if f"\n{target}:" not in makefile} == set()


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", TEXT):
        assert (ROOT / target).exists(), target
