"""What client commands print: tables that fit the terminal, or JSON that scripts can rely on.

Standard output has what was asked for; standard error has errors and remarks, such as how far a change has travelled.
docs/cli.md describes the JSON to users.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal, TextIO

import typer
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table
from rich.text import Text

from latchgate.v1 import admin_service_pb2
from latchgate_server.cli.text import NOTHING, printable, travelled

# Wider than any row: where nobody reads along, nothing is cut.
_UNBOUNDED = 1_000_000
_GAP = 2
_LEGIBLE = 4
_STYLES = {
    "active": "green",
    "allow": "green",
    "enabled": "green",
    "deny": "red",
    "expired": "red",
    "revoked": "red",
    "disabled": "yellow",
    "disabled, expired": "yellow",
}


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


Output = Annotated[
    Format, typer.Option("--output", "-o", metavar="table|json", help="How to print it.", show_default=True)
]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a list.

    whole: its values are there to be copied, and so are never cut. wraps: they are sentences, and go on in the next
    line where others are cut.
    """

    title: str
    whole: bool = False
    wraps: bool = False


Rows = Sequence[tuple[str, str]]
"""What is to be told of one thing: names and values; an empty value is left out."""


def print_json(message: Message) -> None:
    """Print a message in the proto JSON mapping, with the names of its fields as they are in the proto, sorted.

    Fields without presence are there also where they are empty, so that every answer has the same keys.
    """
    print(
        MessageToJson(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, sort_keys=True
        )
    )


def print_list(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print a line for each row. On a terminal, what does not fit is cut or wrapped; elsewhere nothing is."""
    cells = [[_cell(value or NOTHING) for value in row] for row in rows]
    widths = [
        max(len(column.title), *(row[place].cell_len for row in cells), 0) for place, column in enumerate(columns)
    ]
    if sys.stdout.isatty():
        widths = fitted(widths, [not column.whole for column in columns], console(sys.stdout).width)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for column, width in zip(columns, widths, strict=True):
        overflow: Literal["fold", "ellipsis"] = "fold" if column.wraps else "ellipsis"
        table.add_column(column.title.upper(), no_wrap=not column.wraps, overflow=overflow, width=width)
    for row in cells:
        table.add_row(*row)
    print_table(table, _UNBOUNDED)


def fitted(widths: Sequence[int], may_shrink: Sequence[bool], room: int) -> list[int]:
    """The widths, the widest of those that may shrink made smaller until all and the gaps between them fit into `room`.

    None shrinks below a legible minimum; then they may still not fit.
    """
    fitting = list(widths)
    excess = sum(widths) + _GAP * (len(widths) - 1) - room
    shrinkable = [place for place, may in enumerate(may_shrink) if may]
    while excess > 0 and shrinkable:
        widest = max(shrinkable, key=lambda place: fitting[place])
        if fitting[widest] <= _LEGIBLE:
            break
        fitting[widest] -= 1
        excess -= 1
    return fitting


def print_details(rows: Rows) -> None:
    """Print a line for each name that has a value; longer values are wrapped on a terminal."""
    print_table(details_table(rows))


def details_table(rows: Rows) -> Table:
    """What `print_details` prints."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        if value:
            lines = Text("\n").join(_cell(line) for line in value.split("\n"))
            table.add_row(Text(name), lines)
    return table


def print_one(output: Format, response: Message, rows: Rows) -> None:
    """Print what was read. rows: the same, as a table tells it."""
    if output is Format.JSON:
        print_json(response)
    else:
        print_details(rows)


def print_change(output: Format, response: Message, rows: Rows, propagation: admin_service_pb2.Propagation) -> None:
    """Print what was changed, and on standard error how far the change has travelled; in JSON that is within."""
    print_one(output, response, rows)
    if output is Format.TABLE:
        remark(travelled(propagation))


def print_deletion(output: Format, response: Message, what: str, propagation: admin_service_pb2.Propagation) -> None:
    """Print that something is gone. what: its id."""
    if output is Format.JSON:
        print_json(response)
        return
    print(f"deleted {printable(what)}")
    remark(travelled(propagation))


def print_page(
    output: Format, response: Message, columns: Sequence[Column], rows: Iterable[Sequence[str]], more: str
) -> None:
    """Print a list. more: next_page_token; where there is one, standard error says how to go on."""
    if output is Format.JSON:
        print_json(response)
        return
    print_list(columns, rows)
    if more:
        remark(f"there are more: --page-token {more}")


def remark(text: str) -> None:
    """Print a dim line on standard error, after what standard output has so far."""
    sys.stdout.flush()
    console(sys.stderr).print(Text(printable(text), style="dim"), soft_wrap=True)


def console(stream: TextIO, width: int | None = None) -> Console:
    """A console that colours on a terminal alone, and not there either where NO_COLOR is set.

    width: in columns; None: the terminal's, or none that would matter.
    """
    terminal = stream.isatty()
    width = width or (None if terminal else _UNBOUNDED)
    return Console(file=stream, force_terminal=terminal, width=width, highlight=False, markup=False, emoji=False)


def _cell(value: str) -> Text:
    return Text(printable(value), style=_STYLES.get(value, ""))


def print_table(table: Table, width: int | None = None) -> None:
    """Print a table; on a terminal of its width, or of `width` columns, else as wide as it is."""
    if sys.stdout.isatty():
        console(sys.stdout, width).print(table)
        return
    # Without the blanks that pad the last column.
    rendered = io.StringIO()
    console(rendered).print(table)
    for line in rendered.getvalue().splitlines():
        print(line.rstrip())
