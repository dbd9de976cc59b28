"""The command line. Thin: it reads arguments, calls a server or the composition root, and shows what comes back."""

from __future__ import annotations

import io
import sys

import typer

from latchgate_server.cli import server
from latchgate_server.cli.failures import FAILED, USAGE, tell


def application(command: str = "") -> typer.Typer:
    """Every command; those alone that run the service where `command` is one of them, as it then starts much sooner."""
    app = typer.Typer(
        name="latchgate",
        help="Authorization for API keys: run the service, manage keys, ask for decisions.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    server.register(app)
    if command not in server.NAMES:
        _add_client_commands(app)
    return app


def _add_client_commands(app: typer.Typer) -> None:
    from latchgate_server.cli import (  # noqa: PLC0415 - see application
        audit,
        checks,
        envoy_config,
        keys,
        plans,
        roles,
        tenants,
        top,
        verify,
    )

    checks.register(app)
    app.add_typer(tenants.app, name="tenants")
    app.add_typer(plans.app, name="plans")
    app.add_typer(roles.app, name="roles")
    app.add_typer(keys.app, name="keys")
    app.add_typer(audit.app, name="audit")
    verify.register(app)
    envoy_config.register(app)
    top.register(app)


def main() -> None:
    """The entry point `latchgate`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What a terminal of another encoding cannot show must not end the command.
            stream.reconfigure(errors="backslashreplace")
    try:
        "".join(sys.argv).encode()
    except UnicodeEncodeError:
        tell("the command line is not UTF-8")
        sys.exit(USAGE)
    try:
        code = application(*sys.argv[1:2])(prog_name="latchgate", standalone_mode=False)
    except typer.TyperException as error:
        code = _told(error)
    except typer.Abort:
        code = FAILED
    sys.exit(code)


def _told(error: typer.TyperException) -> int:
    """Say what is wrong with the command line, and return the exit code."""
    message = error.format_message()
    if message.startswith("Usage:"):
        # Nothing was typed but the name of a group: this is its help.
        print(message, file=sys.stderr)
    else:
        tell(message.replace("Value error, ", ""))
    return error.exit_code
