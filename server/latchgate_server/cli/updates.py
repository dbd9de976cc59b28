"""What the commands that change or delete something have in common: which fields they name, and asking first."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer
from google.protobuf.field_mask_pb2 import FieldMask

from latchgate_server.cli.failures import FAILED, USAGE, fail

Etag = Annotated[
    str, typer.Option("--etag", metavar="TEXT", help="Only if it still has this one, as `get` showed it; without: any.")
]


def changes(
    fields: Mapping[str, str], given: Mapping[str, Any], clear: Iterable[str], command: str
) -> tuple[Mapping[str, Any], FieldMask]:
    """The fields that options set, with their values, and the mask of all that a command changes.

    fields: of the message, by the option that sets each. given: values by option; None where it was not given. clear:
    the options whose fields are to be emptied. command: which one, for help. Ends it where nothing is to change.
    """
    values = {fields[option]: value for option, value in given.items() if value is not None}
    cleared = []
    for option in clear:
        if fields[option] in values:
            fail(f"--{option} and --clear {option} exclude each other", USAGE)
        cleared.append(fields[option])
    mask = FieldMask(paths=[*values, *cleared])
    if not mask.paths:
        fail(f"nothing to change; `latchgate {command} --help` shows what can be", USAGE)
    return values, mask


def confirm(question: str, yes: bool) -> None:
    """Ask on a terminal. Where there is nobody to ask, --yes has to say so."""
    if yes:
        return
    if not sys.stdin.isatty():
        fail("this cannot be undone, and there is no terminal to ask on: add --yes", USAGE)
    if not typer.confirm(question, err=True):
        fail("nothing was changed", FAILED)
