"""Commands that look after keys: rotate, explain, and what is needed when one leaks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.duration_pb2 import Duration

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import decision_pb2, verify_service_pb2
from latchgate_server.cli import options, text
from latchgate_server.cli.failures import USAGE, fail
from latchgate_server.cli.key_file import keep, new_secret_file, tell_key_string
from latchgate_server.cli.key_states import KeyId
from latchgate_server.cli.key_views import STATES, State, details
from latchgate_server.cli.output import Column, Format, Output, print_json, print_list, print_one, remark
from latchgate_server.cli.parsing import duration_from, tags_from, time_from
from latchgate_server.cli.remote import Admin, administration
from latchgate_server.cli.updates import confirm
from latchgate_server.system import SystemClock


def register(app: typer.Typer) -> None:
    """Add these commands to the group `keys`."""
    app.command()(rotate)
    app.command()(explain)
    app.command("revoke-all")(revoke_all)
    app.command("report-leak")(report_leak)


def rotate(
    key_id: KeyId,
    *,
    grace: Annotated[
        str, typer.Option("--grace", metavar="DURATION", help="How long the old key stays valid; 0s: revoked at once.")
    ] = "7d",
    expire_time: Annotated[
        str | None, typer.Option("--expire-time", metavar="TIME", help="The new key's end; without: as the old one's.")
    ] = None,
    request_id: Annotated[
        str, typer.Option("--request-id", metavar="UUID", help="Repeating the command with it makes no second key.")
    ] = "",
    key_file: Annotated[
        Path | None, typer.Option("--key-file", metavar="FILE", help="A new file for the key string, for you alone.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Make a key's successor, alike in all but the secret, and let the old key live for a while.

    The new key string is told this once, or goes to the --key-file.
    """
    now = SystemClock().now()
    request = pb.RotateKeyRequest(
        key_id=key_id,
        grace_period=Duration() if grace in ("0", "0s") else duration_from(grace, "--grace"),
        expire_time=time_from(expire_time, "--expire-time", now) if expire_time else None,
        request_id=request_id,
    )
    with administration() as admin:
        if key_file is None:
            response = admin.change(admin.stub.RotateKey, request)
        else:
            response = _rotate_into(key_file, admin, request)
    print_one(output, response, details(response.key, now))
    if output is Format.TABLE:
        if key_file is None:
            tell_key_string(response.key_string)
        end = "revoked" if not request.grace_period.ToMicroseconds() else f"valid for another {grace}"
        remark(f"the old key {key_id} is {end}" + (f"; the new key string is in {key_file}" if key_file else ""))
        remark(text.travelled(response.propagation))


def _rotate_into(path: Path, admin: Admin, request: pb.RotateKeyRequest) -> pb.RotateKeyResponse:
    """Rotate a key with the new key string in a file, and return the response without it."""
    with new_secret_file(path) as file:
        response = admin.change(admin.stub.RotateKey, request)
        keep(response.key_string, file, path, response.key.key_id)
    response.ClearField("key_string")
    return response


def explain(
    key_id: KeyId,
    *,
    ip: Annotated[str, typer.Option("--ip", metavar="ADDRESS", help="The end client's address.")] = "",
    requires: Annotated[str, typer.Option("--requires", metavar="EXPRESSION", help="Required permissions.")] = "",
    capability: Annotated[str, typer.Option("--capability", metavar="NAME", help="A required capability.")] = "",
    tenant: Annotated[str, typer.Option("--tenant", metavar="TENANT", help="Whose resource is asked for.")] = "",
    resource: Annotated[str, typer.Option("--resource", metavar="PATH", help="What is asked for.")] = "",
    act_as: Annotated[str, typer.Option("--act-as", metavar="USER", help="The user to act as.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Show how each check would go for a key. It needs no secret and takes nothing from limits."""
    question = verify_service_pb2.VerifyRequest(
        client_ip=ip,
        required_permissions=requires,
        required_capability=capability,
        tenant_id=tenant,
        resource=resource,
        act_as=act_as,
    )
    with administration() as admin:
        response = admin.read(admin.stub.ExplainKey, pb.ExplainKeyRequest(key_id=key_id, request=question))
    if output is Format.JSON:
        print_json(response)
        return
    rows = [
        [text.reason(check.denial_reason), "passes" if check.passed else "FAILS", check.detail]
        for check in response.checks
    ]
    print_list([Column("check", whole=True), Column("outcome", whole=True), Column("detail", wraps=True)], rows)
    allowed = response.decision == decision_pb2.DECISION_ALLOW
    print(f"\n{'allow' if allowed else f'deny: {text.reason(response.denial_reason)}'}")


def revoke_all(  # noqa: PLR0913 - its parameters are the command's
    *,
    tenant: Annotated[str, typer.Option("--tenant", metavar="TENANT", help="Of this tenant.")] = "",
    owner: Annotated[str, typer.Option("--owner", metavar="TEXT", help="Issued to exactly this owner.")] = "",
    role: Annotated[str, typer.Option("--role", metavar="ROLE", help="Holding this role.")] = "",
    environment: Annotated[str, typer.Option("--environment", metavar="TEXT", help="Of this environment.")] = "",
    tag: options.Tags = None,
    state: Annotated[
        list[State] | None, typer.Option("--state", metavar="STATE", help="Active or disabled; repeatable.")
    ] = None,
    expires_before: Annotated[
        str | None, typer.Option("--expires-before", metavar="TIME", help="Expiring before then, such as 30d.")
    ] = None,
    rotation_due_before: Annotated[
        str | None, typer.Option("--rotation-due-before", metavar="TIME", help="Due for rotation before then.")
    ] = None,
    search: Annotated[
        str, typer.Option("--search", metavar="TEXT", help="In name or description, or at the start of the key id.")
    ] = "",
    reason: options.Reason = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only count what would be revoked.", show_default=False)
    ] = False,
    yes: options.Yes = False,
    output: Output = Format.TABLE,
) -> None:
    """Revoke every key that matches, for good. At least one filter is needed."""
    now = SystemClock().now()
    matching = pb.KeyFilter(
        tenant_id=tenant,
        owner=owner,
        role_id=role,
        environment=environment,
        tags=tags_from(tag or ()),
        states=[STATES[name] for name in state or ()],
        expires_before=time_from(expires_before, "--expires-before", now) if expires_before else None,
        rotation_due_before=time_from(rotation_due_before, "--rotation-due-before", now)
        if rotation_due_before
        else None,
        search=search,
    )
    if matching == pb.KeyFilter():
        fail("which keys? `latchgate keys revoke-all --help` shows the filters", USAGE)
    counting = pb.BatchRevokeKeysRequest(filter=matching, dry_run=True)
    with administration() as admin:
        response = admin.read(admin.stub.BatchRevokeKeys, counting)
        if not dry_run:
            confirm(f"Revoke {response.revoked} keys for good?", yes)
            request = pb.BatchRevokeKeysRequest(filter=matching, reason=reason)
            response = admin.change(admin.stub.BatchRevokeKeys, request)
    if output is Format.JSON:
        print_json(response)
        return
    print(f"{response.revoked} keys {'would be ' if dry_run else ''}revoked")
    if not dry_run:
        remark(text.travelled(response.propagation))


def report_leak(
    source: Annotated[str, typer.Option("--source", metavar="TEXT", help="Where they were found.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Disable the keys whose key strings stand on standard input, one on each line, where they are genuine."""
    found = [line.strip() for line in sys.stdin if line.strip()]
    request = pb.ReportLeakedKeysRequest(key_strings=found, source=source)
    with administration() as admin:
        response = admin.change(admin.stub.ReportLeakedKeys, request)
    if output is Format.JSON:
        print_json(response)
        return
    for place, key_id in enumerate(response.disabled_key_ids, 1):
        print(f"line {place}: {f'disabled {key_id}' if key_id else 'no genuine key'}")
    remark(text.travelled(response.propagation))
