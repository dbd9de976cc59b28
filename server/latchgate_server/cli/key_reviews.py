"""Commands that list keys which somebody should look at: unused, soon to expire, due for rotation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2
from latchgate_server.cli import options, text
from latchgate_server.cli.key_views import COLUMNS, row
from latchgate_server.cli.output import Column, Format, Output, print_page
from latchgate_server.cli.parsing import time_from
from latchgate_server.cli.remote import administration
from latchgate_server.system import SystemClock

_Tenant = Annotated[str, typer.Option("--tenant", metavar="TENANT", help="Of this tenant.")]
_Within = Annotated[str, typer.Option("--within", metavar="DURATION", help="From now on.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the group `keys`."""
    app.command()(stale)
    app.command()(expiring)
    app.command("rotation-due")(rotation_due)


def stale(
    *,
    unused_for: Annotated[
        str, typer.Option("--unused-for", metavar="DURATION", help="For how long, or since when.")
    ] = "90d",
    tenant: _Tenant = "",
    limit: options.Limit = None,
    page_token: options.PageToken = "",
    output: Output = Format.TABLE,
) -> None:
    """List active keys that nobody has used for a while, or ever since they were made."""
    since = time_from(unused_for, "--unused-for", SystemClock().now(), past=True)
    _list(pb.KeyFilter(tenant_id=tenant, unused_since=since), limit, page_token, output)


def expiring(
    *,
    within: _Within = "30d",
    tenant: _Tenant = "",
    limit: options.Limit = None,
    page_token: options.PageToken = "",
    output: Output = Format.TABLE,
) -> None:
    """List active keys that will expire soon. Those that have been replaced by rotation are meant to, and left out."""
    end = time_from(within, "--within", SystemClock().now())
    matching = pb.KeyFilter(tenant_id=tenant, expires_before=end)
    _list(matching, limit, page_token, output, "expires", lambda key: key.expire_time)


def rotation_due(
    *,
    within: _Within = "0s",
    tenant: _Tenant = "",
    limit: options.Limit = None,
    page_token: options.PageToken = "",
    output: Output = Format.TABLE,
) -> None:
    """List active keys that are due for rotation, or will be soon, and have no successor yet."""
    end = time_from(within, "--within", SystemClock().now())
    matching = pb.KeyFilter(tenant_id=tenant, rotation_due_before=end)
    _list(matching, limit, page_token, output, "due", lambda key: key.rotate_by_time)


def _list(  # noqa: PLR0917 - what the three commands differ in, and what they share
    matching: pb.KeyFilter,
    limit: int | None,
    page_token: str,
    output: Format,
    title: str = "",
    time: Callable[[key_pb2.Key], Timestamp] | None = None,
) -> None:
    """time: what a further column of this title tells of each key; without it, unused keys are listed."""
    matching.states.append(key_pb2.Key.STATE_ACTIVE)
    request = pb.ListKeysRequest(filter=matching, page_token=page_token)
    with administration() as admin:
        response = admin.read_list(admin.stub.ListKeys, request, lambda page: page.keys, limit)
    now = SystemClock().now()
    wanted = [key for key in response.keys if not key.expired and not (time and key.successor_key_id)]
    del response.keys[:]
    response.keys.extend(wanted)
    columns = [*COLUMNS, *([Column(title, whole=True)] if time else [])]
    rows = [[*row(key, now), *([text.distance(time(key), now)] if time else [])] for key in response.keys]
    print_page(output, response, columns, rows, response.next_page_token)
