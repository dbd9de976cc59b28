"""`latchgate keys import`: takes keys of another system over, in batches, after all of them were checked."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToJson
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from latchgate.v1 import admin_service_pb2 as pb
from latchgate_server.cli import options, text
from latchgate_server.cli.failures import FAILED, fail, tell
from latchgate_server.cli.import_file import Entry, Refused, read_file
from latchgate_server.cli.output import Column, Format, Output, console, print_list, remark
from latchgate_server.cli.remote import Admin, administration
from latchgate_server.cli.updates import confirm
from latchgate_server.core import bounds
from latchgate_server.system import SystemClock

BATCH_BYTES = 2 * 1_024 * 1_024
"""Well below what a server takes as one message."""

SHOWN = 100
"""How many refusals are looked for on the server: each call names ten, and nobody mends more by hand."""

_FIELD = re.compile(r"keys\[(\d+)\](?:\.(?:key\.)?(.+))?")
_COLUMNS = {"ip_allowlist.ranges": "ip_ranges"}


def register(app: typer.Typer) -> None:
    """Add the command to the group `keys`."""
    app.command("import")(import_)


def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="CSV or JSON lines; - for standard input.")],
    *,
    tenant: Annotated[
        str, typer.Option("--tenant", metavar="TENANT", help="For lines that name none; without: your own tenant.")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check, on the server as well.", show_default=False)
    ] = False,
    skip_refused: Annotated[
        bool, typer.Option("--skip-refused", help="Import what is not refused.", show_default=False)
    ] = False,
    yes: options.Yes = False,
    output: Output = Format.TABLE,
) -> None:
    """Take keys of another system over by the hashes of their credentials.

    All lines are checked before any is imported; where one is refused, none is, unless --skip-refused. docs/cli.md
    describes the columns.
    """
    entries, refused = _read(file, tenant)
    wrong = {one.line for one in refused}
    entries = [entry for entry in entries if entry.line not in wrong]
    with administration() as admin:
        entries, more = _checked(admin, entries)
        refused = sorted(refused + more, key=lambda one: one.line)
        if dry_run or (refused and not skip_refused):
            _tell(output, [], refused, would_import=len(entries))
            raise typer.Exit(FAILED if refused else 0)
        imported: list[tuple[int, str]] = []
        last = None
        if entries:
            confirm(f"Import {_counted(len(entries), 'key')}?", yes)
            imported, last = _import(admin, entries)
    _tell(output, imported, refused, last=last)


def _read(file: str, tenant: str) -> tuple[list[Entry], list[Refused]]:
    now = SystemClock().now()
    try:
        if file == "-":
            return read_file(sys.stdin, tenant, now)
        with Path(file).open(encoding="utf-8-sig", newline="") as lines:
            return read_file(lines, tenant, now)
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        fail(f"{file} is not UTF-8")


def _checked(admin: Admin, entries: Sequence[Entry]) -> tuple[list[Entry], list[Refused]]:
    """Which entries the server would import, and what it says of others."""
    good: list[Entry] = []
    refused: list[Refused] = []
    with _progress("checking", len(entries)) as advance:
        for batch in _batches(entries):
            rest = list(batch)
            while rest:
                request = pb.ImportKeysRequest(keys=[entry.key for entry in rest], dry_run=True)
                answer = admin.attempt(admin.stub.ImportKeys, request, changes=False)
                if isinstance(answer, pb.ImportKeysResponse):
                    break
                found = [_refused(rest, field, why) for field, why in answer]
                refused += found
                if len(refused) >= SHOWN:
                    tell(f"{SHOWN} lines or more are refused; those behind line {rest[-1].line} were not looked at")
                    return good, refused
                wrong = {one.line for one in found}
                rest = [entry for entry in rest if entry.line not in wrong]
            good += rest
            advance(len(batch))
    return good, refused


def _import(admin: Admin, entries: Sequence[Entry]) -> tuple[list[tuple[int, str]], pb.Propagation]:
    """Import all; returns line and key id of each, and how far the last change has travelled."""
    imported: list[tuple[int, str]] = []
    last = pb.Propagation()
    with _progress("importing", len(entries)) as advance:
        for batch in _batches(entries):
            request = pb.ImportKeysRequest(keys=[entry.key for entry in batch])
            try:
                answer = admin.attempt(admin.stub.ImportKeys, request, changes=True)
            except typer.Exit:
                tell(f"{len(imported)} keys were imported before that; repeating the command refuses those")
                raise
            if not isinstance(answer, pb.ImportKeysResponse):
                one = _refused(batch, *answer[0])
                tell(f"line {one.line}: {one.why}; somebody changed something after it was checked")
                fail(f"{len(imported)} keys were imported before that; repeating the command refuses those")
            imported += [(entry.line, key.key_id) for entry, key in zip(batch, answer.keys, strict=True)]
            last = answer.propagation
            advance(len(batch))
    return imported, last


def _batches(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """As many as one call takes, by number and by size."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        own = entry.key.ByteSize()
        if batch and (len(batch) >= bounds.IMPORTED_KEYS or size + own > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += own
    if batch:
        yield batch


def _refused(batch: Sequence[Entry], field: str, why: str) -> Refused:
    """What the server says of a field, by its line and column."""
    parts = _FIELD.fullmatch(field)
    if parts is None or int(parts[1]) >= len(batch):
        fail(f"{field}: {why}")
    column, bracket, place = (parts[2] or "").partition("[")
    column = _COLUMNS.get(column, column)
    return Refused(batch[int(parts[1])].line, column + (f" {int(place[:-1]) + 1}" if bracket else ""), why)


@contextmanager
def _progress(doing: str, total: int) -> Iterator[Any]:
    """A bar on standard error, where that is a terminal; gives what advances it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = sys.stderr.isatty()
    with Progress(*columns, console=console(sys.stderr), transient=True, disable=not shown) as progress:
        task = progress.add_task(doing, total=total)
        yield lambda count: progress.advance(task, count)


def _tell(
    output: Format,
    imported: Sequence[tuple[int, str]],
    refused: Sequence[Refused],
    *,
    would_import: int | None = None,
    last: pb.Propagation | None = None,
) -> None:
    """Say what was imported and what was refused. would_import: where nothing was imported, what could be."""
    if output is Format.JSON:
        told: dict[str, object] = {
            "imported": [{"line": line, "key_id": key_id} for line, key_id in imported],
            "refused": [{"line": one.line, "column": one.column, "why": one.why} for one in refused],
        }
        if would_import is not None:
            told["would_import"] = would_import
        if last is not None:
            told["propagation"] = json.loads(
                MessageToJson(last, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
            )
        print(json.dumps(told, indent=2, sort_keys=True))
        return
    if refused:
        rows = [[str(one.line), one.column, one.why] for one in refused]
        print_list([Column("line", whole=True), Column("column", whole=True), Column("why", whole=True)], rows)
        print()
    count = _counted(len(imported), "key") if would_import is None else f"{_counted(would_import, 'key')} would be"
    lines = len({one.line for one in refused})
    print(f"{count} imported" + (f", {_counted(lines, 'line')} refused" if refused else ""))
    if would_import is not None and refused:
        remark("nothing was imported; --skip-refused imports the rest")
    if last is not None:
        remark(text.travelled(last))


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
