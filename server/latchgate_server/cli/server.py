"""Commands that run the service or prepare its database: dev, serve, migrate, init.

What they import is what the service takes to start.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAMES = frozenset({"dev", "serve", "migrate", "init"})


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.command("dev")(dev_command)
    app.command()(serve)
    app.command()(migrate)
    app.command()(init)


def dev_command(
    data_dir: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the database, the pepper and the root key are kept.")
    ] = Path(".latchgate"),
) -> None:
    """Run everything on this machine, until Ctrl-C.

    The database, the pepper and the first administrator are made on the first start, and kept in DIR.
    """
    from latchgate_server.cli import running  # noqa: PLC0415 - client commands start in half the time without

    running.run_dev(data_dir)


def serve(
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow plaintext on addresses that are not loopback.")
    ] = False,
    worker: Annotated[bool, typer.Option("--worker", hidden=True)] = False,
) -> None:
    """Serve until SIGINT or SIGTERM.

    LATCHGATE_DATABASE_URL names the database, LATCHGATE_PEPPER or LATCHGATE_PEPPER_FILE the pepper.
    """
    from latchgate_server.cli import running  # noqa: PLC0415 - as above

    running.run_server(insecure=insecure, worker=worker)


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Say what is missing and change nothing; exit code 1 where something is.")
    ] = False,
) -> None:
    """Bring the database's schema up to date.

    Safe to run while servers of the version before serve, and from several places at once.
    """
    from latchgate_server.cli import running  # noqa: PLC0415 - as above

    if check:
        running.check_migrations()
    else:
        running.run_migrations()


def init(
    recover: Annotated[
        bool, typer.Option("--recover", help="Make another one: the first is lost, or shut out.", show_default=False)
    ] = False,
) -> None:
    """Make the first administrator.

    Prints its key string, once.
    """
    from latchgate_server.cli import running  # noqa: PLC0415 - as above

    if recover:
        running.recover_administration()
    else:
        running.make_first_administrator()
