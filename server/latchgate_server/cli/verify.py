"""`latchgate verify`: one decision."""

from __future__ import annotations

import getpass
import sys
from typing import Annotated

import typer

from latchgate.v1 import decision_pb2
from latchgate.v1 import verify_service_pb2 as pb
from latchgate_server.cli import remote, text
from latchgate_server.cli.failures import DENIED
from latchgate_server.cli.output import Format, Output, Rows, print_one

# More than any key string has: what is longer is denied, and need not be read to its end.
_STDIN_BYTES = 4_096


def register(app: typer.Typer) -> None:
    """Add this command to the application."""
    app.command("verify")(verify_command)


def verify_command(
    key: Annotated[str, typer.Argument(metavar="KEY|-", help="The key string; - reads it from standard input.")],
    *,
    ip: Annotated[str, typer.Option("--ip", metavar="ADDRESS", help="The end client's address.")] = "",
    requires: Annotated[
        str, typer.Option("--requires", metavar="EXPRESSION", help="Such as 'orders.read AND NOT orders.frozen'.")
    ] = "",
    capability: Annotated[
        str, typer.Option("--capability", metavar="NAME", help="What the tenant's plan must include.")
    ] = "",
    tenant: Annotated[str, typer.Option("--tenant", metavar="TENANT", help="Whose resource is asked for.")] = "",
    resource: Annotated[
        str, typer.Option("--resource", metavar="PATH", help="What is asked for, such as sites/berlin/orders.")
    ] = "",
    act_as: Annotated[str, typer.Option("--act-as", metavar="USER", help="The user to act as.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Ask for a decision about a key.

    Other users of this machine can see a KEY on the command line in the list of processes, and the shell keeps it in
    its history. `latchgate verify - < FILE` shows it to nobody.

    Exit codes: 0 allowed, 3 denied, 1 nothing could be decided, 2 wrong usage.
    """
    request = pb.VerifyRequest(
        key=_from_stdin() if key == "-" else key,
        client_ip=ip,
        required_permissions=requires,
        required_capability=capability,
        tenant_id=tenant,
        resource=resource,
        act_as=act_as,
    )
    response = remote.verify(request)
    print_one(output, response, _details(response))
    if response.decision != decision_pb2.DECISION_ALLOW:
        raise typer.Exit(DENIED)


def _from_stdin() -> str:
    """What is on standard input, without the end of its last line. On a terminal it is typed unseen."""
    if sys.stdin.isatty():
        return getpass.getpass("Key: ")
    return sys.stdin.buffer.read(_STDIN_BYTES).decode("utf-8", "replace").rstrip("\r\n")


def _details(response: pb.VerifyResponse) -> Rows:
    allowed = response.decision == decision_pb2.DECISION_ALLOW
    who = response.identity
    return [
        ("decision", "allow" if allowed else "deny"),
        ("reason", "" if allowed else text.reason(response.denial_reason)),
        ("message", response.message),
        ("retry after", text.duration(response.retry_after) if response.HasField("retry_after") else ""),
        ("stale", "yes: decided while the database was out of reach" if response.stale else ""),
        ("key id", who.key_id),
        ("tenant", who.tenant_id),
        ("name", who.display_name),
        ("owner", who.owner),
        ("user", who.user),
        ("environment", who.environment),
        ("tags", text.tags(who.tags)),
        ("roles", ", ".join(who.role_ids)),
        ("permissions", ", ".join(who.permissions)),
        ("capabilities", ", ".join(who.capabilities)),
        ("resources", ", ".join(who.resources)),
        ("claims", text.claims(who.claims)),
        ("expires", text.moment(who.expire_time) if who.HasField("expire_time") else ""),
        ("limits", ", ".join(f"{limit.name}: {limit.remaining} of {limit.limit} left" for limit in response.limits)),
    ]
