"""How the command line fails: one clear line on standard error and the right exit code."""

from __future__ import annotations

from typing import NoReturn

import typer

from latchgate_server.cli.text import printable
from latchgate_server.core.redaction import without_secrets

FAILED = 1
USAGE = 2
DENIED = 3


def fail(message: str, code: int = FAILED) -> NoReturn:
    """Say what is wrong, and leave."""
    tell(message)
    raise typer.Exit(code)


def tell(message: str) -> None:
    """Print a line for each line of the message. Whatever looks like a secret is cut out."""
    for line in without_secrets(message).splitlines():
        typer.echo(f"latchgate: {printable(line)}", err=True)
