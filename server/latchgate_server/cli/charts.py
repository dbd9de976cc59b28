"""Bar charts for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from latchgate_server.cli.output import print_table

_WIDTH = 40
_EIGHTHS = " ▏▎▍▌▋▊▉"


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: how often something was allowed and denied in the interval that `label` names."""

    label: str
    allowed: int
    denied: int


def print_chart(bars: Sequence[Bar]) -> None:
    """Print a line for each bar, the longest of them as long as there is room, with its numbers."""
    longest = max((bar.allowed + bar.denied for bar in bars), default=0)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("FROM (UTC)", no_wrap=True)
    table.add_column("ALLOWED", justify="right", no_wrap=True)
    table.add_column("DENIED", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, min_width=_WIDTH)
    for bar in bars:
        table.add_row(bar.label, str(bar.allowed or ""), str(bar.denied or ""), _drawn(bar, longest))
    print_table(table)


def _drawn(bar: Bar, longest: int) -> Text:
    """Allowed in green, then denied in red; together in proportion to the longest bar."""
    if not longest:
        return Text()
    allowed = _blocks(bar.allowed * _WIDTH / longest)
    # Whole blocks: two parts of a block cannot share one place.
    denied = "█" * (max(1, round(bar.denied * _WIDTH / longest)) if bar.denied else 0)
    return Text.assemble((allowed, "green"), (denied, "red"))


def _blocks(length: float) -> str:
    """A bar of so many places, to an eighth of one; never nothing for something."""
    eighths = round(length * 8) or (1 if length else 0)
    whole, part = divmod(eighths, 8)
    return "█" * whole + (_EIGHTHS[part] if part else "")
