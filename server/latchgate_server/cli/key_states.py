"""Commands that switch keys on and off, for a while or for good."""

from __future__ import annotations

from typing import Annotated

import typer

from latchgate.v1 import admin_service_pb2 as pb
from latchgate_server.cli import options
from latchgate_server.cli.key_views import details
from latchgate_server.cli.output import Format, Output, print_change, print_deletion
from latchgate_server.cli.remote import administration
from latchgate_server.cli.updates import confirm
from latchgate_server.system import SystemClock


def _public(key_id: str) -> str:
    """The key id. A whole key string is refused: it would be sent, and perhaps logged, as a name."""
    if "." in key_id:
        raise typer.BadParameter("a key id ends before the dot; what follows it is the secret")
    return key_id


KeyId = Annotated[
    str, typer.Argument(metavar="KEY_ID", help="The key's public half, without the secret.", callback=_public)
]


def register(app: typer.Typer) -> None:
    """Add these commands to the group `keys`."""
    for command in (enable, disable, expire, revoke, delete):
        app.command()(command)


def enable(key_id: KeyId, reason: options.Reason = "", output: Output = Format.TABLE) -> None:
    """Switch a disabled key on again."""
    with administration() as admin:
        response = admin.change(admin.stub.EnableKey, pb.EnableKeyRequest(key_id=key_id, reason=reason))
    print_change(output, response, details(response.key, SystemClock().now()), response.propagation)


def disable(key_id: KeyId, reason: options.Reason = "", output: Output = Format.TABLE) -> None:
    """Switch a key off until it is enabled."""
    with administration() as admin:
        response = admin.change(admin.stub.DisableKey, pb.DisableKeyRequest(key_id=key_id, reason=reason))
    print_change(output, response, details(response.key, SystemClock().now()), response.propagation)


def expire(key_id: KeyId, reason: options.Reason = "", output: Output = Format.TABLE) -> None:
    """Let a key expire now. `keys update` with another --expire-time, or --clear expire-time, undoes it."""
    with administration() as admin:
        response = admin.change(admin.stub.ExpireKey, pb.ExpireKeyRequest(key_id=key_id, reason=reason))
    print_change(output, response, details(response.key, SystemClock().now()), response.propagation)


def revoke(key_id: KeyId, reason: options.Reason = "", yes: options.Yes = False, output: Output = Format.TABLE) -> None:
    """Switch a key off for good."""
    confirm(f"Revoke {key_id} for good?", yes)
    with administration() as admin:
        response = admin.change(admin.stub.RevokeKey, pb.RevokeKeyRequest(key_id=key_id, reason=reason))
    print_change(output, response, details(response.key, SystemClock().now()), response.propagation)


def delete(key_id: KeyId, reason: options.Reason = "", yes: options.Yes = False, output: Output = Format.TABLE) -> None:
    """Remove a key's record; its audit events stay."""
    confirm(f"Delete {key_id}? It cannot be recovered.", yes)
    with administration() as admin:
        response = admin.change(admin.stub.DeleteKey, pb.DeleteKeyRequest(key_id=key_id, reason=reason))
    print_deletion(output, response, key_id, response.propagation)
