"""Columns of rows as array literals, which a statement casts from text: `$1::text::bigint[]`.

The driver looks at every element of an array by itself, and once more for arrays within it. Where thousands of rows are
written each second, on the event loop that decides, literals cost a fifth of that. Their syntax: PostgreSQL's
documentation, "Arrays", section "Array Input and Output Syntax".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_BETWEEN: Final = '","'


def texts(values: Sequence[str]) -> str:
    """Of texts, whatever they hold but NUL, which PostgreSQL knows not."""
    joined = _BETWEEN.join(values)
    if "\\" in joined or joined.count('"') > 2 * (len(values) - 1):
        joined = _BETWEEN.join(value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return f'{{"{joined}"}}' if values else "{}"


def integers(values: list[int]) -> str:
    """Of whole numbers."""
    return f"{{{str(values)[1:-1]}}}"  # Python separates the numbers of a list as an array literal may


def moments(values: list[float]) -> str:
    """Of points in time, in Unix seconds: whole microseconds, as PostgreSQL keeps them."""
    return integers([int(seconds * 1e6 + 0.5) for seconds in values])
