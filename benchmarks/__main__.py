"""`make bench`: measure, print a table, write it as JSON; exit with 1 where a row does not reach what it should."""

# ruff: noqa: T201 - it reports to whoever ran it
from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from benchmarks import plots
from benchmarks.house import Bench, Options, opened
from benchmarks.load import H2loadMissing, find_h2load
from benchmarks.machine import described
from benchmarks.report import Figure, table, write
from benchmarks.rows import ROWS

_ROOT = Path(__file__).parent.parent
_INTERRUPTED = 130  # as shells say it of what ended by SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code. What rows found is kept as soon as they are finished, whatever ends the run."""
    given = _parser().parse_args(arguments)
    options = Options(**{field.name: getattr(given, field.name) for field in fields(Options)})
    machine = described(_ROOT)
    began = time.monotonic()
    path = given.output / f"{given.name}.json"
    figures: Sequence[Figure] = ()
    try:
        find_h2load()  # before minutes are spent on what it is to measure
        with opened(options, _told) as bench:
            for figures in measured(bench, given.rows):
                _keep(path, machine, figures, bench.points)
    except H2loadMissing as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        missing = [row for row in given.rows if row not in {figure.row for figure in figures}]
        print(f"\ninterrupted; not measured: {', '.join(missing)}", file=sys.stderr)
        return _INTERRUPTED
    finally:
        if figures:
            print(f"\n{table(figures)}\n\n{time.monotonic() - began:.0f} s; {path}")
    return int(any(figure.met is False for figure in figures))


def measured(bench: Bench, rows: Sequence[str]) -> Iterator[Sequence[Figure]]:
    """Measure these rows: after each that is finished, all figures so far, in the order of the table."""
    figures: list[Figure] = []
    places = list(ROWS)
    for function in dict.fromkeys(ROWS[row] for row in rows):
        figures.extend(function(bench, [row for row in rows if ROWS[row] is function]))
        figures.sort(key=lambda figure: places.index(figure.row))
        yield figures


def _keep(path: Path, machine: Mapping[str, object], figures: Sequence[Figure], points: Mapping[str, Any]) -> None:
    write(path, machine, figures, points)
    for row, draw in (("latency", plots.latency), ("growth", plots.growth), ("replicas", plots.replicas)):
        if row in points:
            draw(path.with_name(f"{path.stem}-{row}.svg"), points[row])


def _told(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def _rows(text: str) -> Sequence[str]:
    rows = text.split(",")
    for row in rows:
        if row not in ROWS:
            raise argparse.ArgumentTypeError(f"{row} is none of {', '.join(ROWS)}")
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench ARGS='…'", description=__doc__, allow_abbrev=False)
    parser.add_argument("--rows", type=_rows, default=list(ROWS), help=f"separated by commas, of {', '.join(ROWS)}")
    parser.add_argument("--output", type=Path, default=_ROOT / "benchmarks" / "results", help="folder of the JSON")
    parser.add_argument("--name", default="latest", help="the JSON's name in it")
    for field in fields(Options):
        name = f"--{field.name.replace('_', '-')}"
        parser.add_argument(name, type=type(field.default), default=field.default, help=f"default: {field.default}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
