"""Commands about the audit log: who changed what, and whether anybody tampered with it."""

from __future__ import annotations

from typing import Annotated

import typer

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import audit_pb2
from latchgate_server.cli import options, text
from latchgate_server.cli.failures import FAILED, USAGE, fail
from latchgate_server.cli.output import Column, Format, Output, print_page
from latchgate_server.cli.parsing import time_from
from latchgate_server.cli.remote import administration
from latchgate_server.system import SystemClock

app = typer.Typer(help="The audit log: who changed what.", no_args_is_help=True)

_COLUMNS = [
    Column("number", whole=True),
    Column("time", whole=True),
    Column("method", whole=True),
    Column("target"),
    Column("tenant"),
    Column("actor"),
    Column("reason"),
]


@app.command("list")
def list_(
    *,
    tenant: Annotated[str, typer.Option("--tenant", metavar="TENANT", help="Changes in this tenant.")] = "",
    target: Annotated[str, typer.Option("--target", metavar="ID", help="Changes to this key, role, plan …")] = "",
    actor: Annotated[str, typer.Option("--actor", metavar="KEY_ID", help="Changes by this administrator.")] = "",
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="From then on, such as 7d for a week ago.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before then.")] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many.")] = 100,
    page_token: options.PageToken = "",
    output: Output = Format.TABLE,
) -> None:
    """List changes, newest first. --output json has what they altered."""
    now = SystemClock().now()
    request = pb.ListAuditEventsRequest(
        tenant_id=tenant,
        target_id=target,
        actor=actor,
        start_time=time_from(since, "--since", now, past=True) if since else None,
        end_time=time_from(until, "--until", now, past=True) if until else None,
        page_token=page_token,
    )
    with administration() as admin:
        response = admin.read_list(admin.stub.ListAuditEvents, request, lambda page: page.events, limit)
    print_page(output, response, _COLUMNS, [_row(event) for event in response.events], response.next_page_token)


@app.command()
def verify(
    head: Annotated[
        str,
        typer.Option("--head", metavar="NUMBER:HASH", help="What an earlier run printed: shows a cut-off end as well."),
    ] = "",
) -> None:
    """Check the whole chain, on the database itself: needs LATCHGATE_DATABASE_URL and the pepper, as `serve` does.

    Prints the chain's head. Kept elsewhere, it shows later whether the end of the log was cut off.
    """
    from latchgate_server.cli.running import check_audit_log  # noqa: PLC0415 - imports the whole server

    check = check_audit_log(_anchor(head) if head else None)
    if check.flaw is not None:
        fail(f"event {check.flaw.sequence} {check.flaw.description}", FAILED)
    print(f"{check.events} events, none altered, removed or reordered")
    print(f"head {check.head[0]}:{check.head[1].hex()}")


def _anchor(head: str) -> tuple[int, bytes]:
    number, _, digest = head.partition(":")
    try:
        return int(number), bytes.fromhex(digest)
    except ValueError:
        fail("--head takes what an earlier run printed, such as 17:9f86d0…", USAGE)


def _row(event: audit_pb2.AuditEvent) -> list[str]:
    return [
        str(event.sequence),
        text.moment(event.time),
        event.method,
        event.target_id,
        event.tenant_id,
        event.actor,
        event.reason,
    ]
