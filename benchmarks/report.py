"""What a run of the benchmark found: a table for people, JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    row: the row that it belongs to. value: in `unit`. reach: what the design asks for, in words; empty: it is only
    reported. met: whether `value` reaches it; None where nothing is asked. beside: other figures, never asserted.
    """

    row: str
    what: str
    value: float
    unit: str
    reach: str = ""
    met: bool | None = None
    beside: str = ""


_HEADINGS = ("row", "what", "measured", "reach", "", "beside")


def table(figures: Sequence[Figure]) -> str:
    """All figures, aligned."""
    lines = [_HEADINGS, *map(_cells, figures)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(_HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _cells(figure: Figure) -> tuple[str, ...]:
    met = "" if figure.met is None else "yes" if figure.met else "NO"
    return figure.row, figure.what, f"{_rounded(figure.value)} {figure.unit}".strip(), figure.reach, met, figure.beside


def _rounded(value: float) -> str:
    if abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 20 else f"{value:.2f}"


def write(path: Path, machine: Mapping[str, object], figures: Sequence[Figure], points: Mapping[str, object]) -> None:
    """Write the run as JSON. points: of plots, by the row that left them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "machine": machine,
        "figures": [asdict(figure) for figure in figures],
        **({"points": points} if points else {}),
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
