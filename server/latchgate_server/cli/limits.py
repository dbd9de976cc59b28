"""Commands that set limits back, of keys and of tenants."""

from __future__ import annotations

from typing import Annotated

import typer

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import decision_pb2
from latchgate_server.cli import options, text
from latchgate_server.cli.key_states import KeyId
from latchgate_server.cli.output import Format, Output, Rows, print_change
from latchgate_server.cli.remote import administration

Name = Annotated[str, typer.Argument(metavar="LIMIT", help="The limit's name.")]
Remaining = Annotated[
    int | None, typer.Option("--remaining", metavar="N", min=0, help="How much is to be left; without: all of it.")
]


def reset_key_limit(
    key_id: KeyId,
    name: Name,
    *,
    remaining: Remaining = None,
    reason: options.Reason = "",
    output: Output = Format.TABLE,
) -> None:
    """Set a limit of a key back; it is shared with those that the key replaced and was replaced by."""
    _reset(pb.ResetLimitRequest(key_id=key_id, name=name, remaining=remaining, reason=reason), output)


def reset_tenant_limit(
    tenant_id: Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's id.")],
    name: Name,
    *,
    remaining: Remaining = None,
    reason: options.Reason = "",
    output: Output = Format.TABLE,
) -> None:
    """Set a limit of a tenant back, which all of its keys share."""
    _reset(pb.ResetLimitRequest(tenant_id=tenant_id, name=name, remaining=remaining, reason=reason), output)


def _reset(request: pb.ResetLimitRequest, output: Format) -> None:
    with administration() as admin:
        response = admin.change(admin.stub.ResetLimit, request)
    print_change(output, response, _details(response.limit), response.propagation)


def _details(limit: decision_pb2.LimitStatus) -> Rows:
    return [
        ("limit", limit.name),
        ("left", f"{limit.remaining} of {limit.limit}"),
        ("whole in", text.duration(limit.reset_after) if limit.HasField("reset_after") else ""),
    ]
