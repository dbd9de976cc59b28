"""Commands that run the service or prepare its database: dev, serve, migrate, init, health."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import grpc
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from latchgate_server.cli.connection import open_channel, unanswered
from latchgate_server.cli.failures import fail
from latchgate_server.cli.output import Format, Output

_HEALTH_TIMEOUT = 3.0


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.command("dev")(dev_command)
    app.command()(serve)
    app.command()(migrate)
    app.command()(init)
    app.command()(health)
    app.command("doctor")(doctor)


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


def migrate() -> None:
    """Bring the database's schema up to date."""
    from latchgate_server.cli import running  # noqa: PLC0415 - as above

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


def doctor(output: Output = Format.TABLE) -> None:
    """Check the deployment, and say what to do.

    Run it where `serve` runs, with its settings: LATCHGATE_DATABASE_URL, the pepper and all others. It changes nothing.
    Exit code 1 where something is wrong; warnings alone leave it 0.
    """
    from latchgate_server.cli import doctor as checks  # noqa: PLC0415 - as above

    checks.run(output)


def health(
    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="The server to ask; by default the one that this machine's settings describe."
        ),
    ] = None,
) -> None:
    """Ask whether a server is serving; exit code 0 where it is.

    Over TLS where LATCHGATE_CA says whom to trust; this machine's own server is known by its certificate.
    """
    own = None
    if address is None:
        from latchgate_server.cli import running  # noqa: PLC0415 - as above

        address, own = running.own_verify_port()
    request = health_pb2.HealthCheckRequest()
    with open_channel(address, own) as channel:
        try:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(request, timeout=_HEALTH_TIMEOUT)  # type: ignore[attr-defined]  # its stubs lack it
        except grpc.RpcError as error:
            fail(unanswered(address, error, own))
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    typer.echo(status)
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise typer.Exit(1)
