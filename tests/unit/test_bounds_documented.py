"""docs/reference/bounds.md tells every bound of core/bounds.py, with the number that counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from latchgate_server.core import bounds

PAGE = Path(__file__).parents[2] / "docs/reference/bounds.md"
UNITS = {"KiB": 1_024, "days": 86_400}


def documented() -> Iterator[tuple[str, int]]:
    """Name and number of each row: the second column begins with the number, the last one is the name."""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) >= 3 and cells[-1].startswith("`"):
            number, _, unit = cells[1].partition(" ")
            yield cells[-1].strip("`"), int(number.replace(",", "")) * UNITS.get(unit, 1)


def test_every_bound_is_documented_once_with_its_number() -> None:
    actual = [(name, value) for name, value in vars(bounds).items() if name.isupper()]
    assert sorted(documented()) == sorted(actual)
