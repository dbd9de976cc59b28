"""Columns of rows as array literals, which a statement casts from text: `$1::text::bigint[]`.

The driver looks at every element of an array by itself, and once more for arrays within it. Where thousands of rows are
written each second, on the event loop that decides, literals cost a fifth of that. Their syntax: PostgreSQL's
documentation, "Arrays", section "Array Input and Output Syntax".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

NONE: Final = "{}"
"""The literal of an array without elements."""

_BETWEEN: Final = '","'


def texts(values: Sequence[str]) -> str:
    """Of texts, whatever they hold but NUL, which PostgreSQL knows not."""
    text = _BETWEEN.join(values)
    if "\\" in text or text.count('"') > 2 * (len(values) - 1):
        text = _BETWEEN.join(value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return f'{{"{text}"}}' if values else NONE


def integers(values: list[int]) -> str:
    """Of whole numbers."""
    return f"{{{str(values)[1:-1]}}}"  # Python separates the numbers of a list as an array literal may


def moments(values: list[float]) -> str:
    """Of points in time, in Unix seconds: whole microseconds, as PostgreSQL keeps them."""
    return integers([int(seconds * 1e6 + 0.5) for seconds in values])


def joined(one: str, other: str) -> str:
    """The literal of the elements of both, in order."""
    if NONE in {one, other}:
        return one if other == NONE else other
    return f"{one[:-1]},{other[1:]}"
