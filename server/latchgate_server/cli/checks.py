"""Commands that look after a running service: health and doctor."""

from __future__ import annotations

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
    app.command()(health)
    app.command("doctor")(doctor)


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


def doctor(output: Output = Format.TABLE) -> None:
    """Check the deployment, and say what to do.

    Run it where `serve` runs, with its settings: LATCHGATE_DATABASE_URL, the pepper and all others. It changes nothing.
    Exit code 1 where something is wrong; warnings alone leave it 0.
    """
    from latchgate_server.cli import doctor as checks  # noqa: PLC0415 - as above

    checks.run(output)
