"""Commands about keys: making, reading and changing them. What ends them is in key_states.py."""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.field_mask_pb2 import FieldMask

from latchgate.v1 import admin_service_pb2 as pb
from latchgate_server.cli import (
    key_care,
    key_fields,
    key_import,
    key_reviews,
    key_states,
    key_usage,
    limits,
    options,
    text,
)
from latchgate_server.cli.failures import USAGE, fail
from latchgate_server.cli.key_fields import CLEARED, Clearable, Grants, Restrictions, Words, key_from
from latchgate_server.cli.key_file import keep, new_secret_file, tell_key_string
from latchgate_server.cli.key_states import KeyId
from latchgate_server.cli.key_views import COLUMNS, STATES, State, details, row
from latchgate_server.cli.output import Format, Output, print_change, print_json, print_one, print_page, remark
from latchgate_server.cli.parsing import tags_from, time_from
from latchgate_server.cli.remote import Admin, administration
from latchgate_server.system import SystemClock

app = typer.Typer(help="Keys: make, read, change, switch off, delete.", no_args_is_help=True)


@app.command()
def create(  # noqa: PLR0913 - its parameters are the command's
    *,
    tenant: Annotated[
        str, typer.Option("--tenant", metavar="TENANT", help="Whose key it is; without: your own tenant's.")
    ] = "",
    name: key_fields.Name = None,
    description: key_fields.Description = None,
    owner: key_fields.Owner = None,
    default_user: key_fields.DefaultUser = None,
    environment: key_fields.Environment = None,
    tag: options.Tags = None,
    role: key_fields.Roles = None,
    permission: options.Permissions = None,
    resource: key_fields.Resources = None,
    claims: options.Claims = None,
    ip: key_fields.Ranges = None,
    ip_allowlist: key_fields.Allowlist = None,
    expire_time: key_fields.ExpireTime = None,
    rotate_by_time: key_fields.RotateBy = None,
    key_limit: key_fields.KeyLimits = None,
    prefix: Annotated[str, typer.Option("--prefix", metavar="TEXT", help="Leads the key id: acme_live.")] = "",
    request_id: Annotated[
        str, typer.Option("--request-id", metavar="UUID", help="Repeating the command with it makes no second key.")
    ] = "",
    key_file: Annotated[
        Path | None, typer.Option("--key-file", metavar="FILE", help="A new file for the key string, for you alone.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Create a key and tell its key string, this once.

    With --key-file the key string goes there, and only the key id is printed.
    """
    words = Words(name, description, owner, default_user, environment, tag)
    restrictions = Restrictions(ip, ip_allowlist, expire_time, rotate_by_time, key_limit)
    key, _ = key_from(words, Grants(role, permission, resource, claims), restrictions, SystemClock().now())
    key.tenant_id = tenant
    request = pb.CreateKeyRequest(key=key, prefix=prefix, request_id=request_id)
    with administration() as admin:
        if key_file is None:
            _tell(output, admin.change(admin.stub.CreateKey, request))
        else:
            _tell_key_id(output, _create_into(key_file, admin, request))


def _create_into(path: Path, admin: Admin, request: pb.CreateKeyRequest) -> pb.CreateKeyResponse:
    """Create a key with its key string in a file, and return the response without it."""
    with new_secret_file(path) as file:
        response = admin.change(admin.stub.CreateKey, request)
        keep(response.key_string, file, path, response.key.key_id)
    response.ClearField("key_string")
    return response


def _tell(output: Format, response: pb.CreateKeyResponse) -> None:
    """Print the key, and its key string on a line of its own: in a table it could be wrapped."""
    print_one(output, response, details(response.key, SystemClock().now()))
    if output is Format.TABLE:
        tell_key_string(response.key_string)
        remark(text.travelled(response.propagation))


def _tell_key_id(output: Format, response: pb.CreateKeyResponse) -> None:
    if output is Format.JSON:
        print_json(response)
        return
    print(response.key.key_id)
    remark(text.travelled(response.propagation))


@app.command()
def get(key_id: KeyId, output: Output = Format.TABLE) -> None:
    """Show a key, never its secret."""
    with administration() as admin:
        response = admin.read(admin.stub.GetKey, pb.GetKeyRequest(key_id=key_id))
    print_one(output, response, details(response.key, SystemClock().now()))


@app.command("list")
def list_(  # noqa: PLR0913 - its parameters are the command's
    *,
    tenant: Annotated[str, typer.Option("--tenant", metavar="TENANT", help="Of this tenant.")] = "",
    owner: Annotated[str, typer.Option("--owner", metavar="TEXT", help="Issued to exactly this owner.")] = "",
    role: Annotated[str, typer.Option("--role", metavar="ROLE", help="Holding this role.")] = "",
    environment: Annotated[str, typer.Option("--environment", metavar="TEXT", help="Of this environment.")] = "",
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="NAME=VALUE", help="With this tag; repeatable.")
    ] = None,
    state: Annotated[
        list[State] | None,
        typer.Option("--state", metavar="STATE", help="Active, disabled or revoked; repeatable."),
    ] = None,
    expires_before: Annotated[
        str | None, typer.Option("--expires-before", metavar="TIME", help="Expiring before then, such as 30d.")
    ] = None,
    rotation_due_before: Annotated[
        str | None, typer.Option("--rotation-due-before", metavar="TIME", help="Due for rotation before then.")
    ] = None,
    unused_since: Annotated[
        str | None, typer.Option("--unused-since", metavar="TIME", help="Not used since then; 90d: for 90 days.")
    ] = None,
    search: Annotated[
        str, typer.Option("--search", metavar="TEXT", help="In name or description, or at the start of the key id.")
    ] = "",
    limit: options.Limit = None,
    page_token: options.PageToken = "",
    output: Output = Format.TABLE,
) -> None:
    """List the keys that you may see and that match: the newest first, or those that expire or are due latest."""
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
        unused_since=time_from(unused_since, "--unused-since", now, past=True) if unused_since else None,
        search=search,
    )
    request = pb.ListKeysRequest(filter=matching, page_token=page_token)
    with administration() as admin:
        response = admin.read_list(admin.stub.ListKeys, request, lambda page: page.keys, limit)
    print_page(output, response, COLUMNS, [row(key, now) for key in response.keys], response.next_page_token)


@app.command()
def update(  # noqa: PLR0913 - its parameters are the command's
    key_id: KeyId,
    *,
    name: key_fields.Name = None,
    description: key_fields.Description = None,
    owner: key_fields.Owner = None,
    default_user: key_fields.DefaultUser = None,
    environment: key_fields.Environment = None,
    tag: options.Tags = None,
    role: key_fields.Roles = None,
    permission: options.Permissions = None,
    resource: key_fields.Resources = None,
    claims: options.Claims = None,
    ip: key_fields.Ranges = None,
    ip_allowlist: key_fields.Allowlist = None,
    expire_time: key_fields.ExpireTime = None,
    rotate_by_time: key_fields.RotateBy = None,
    key_limit: key_fields.KeyLimits = None,
    clear: Annotated[
        list[Clearable] | None,
        typer.Option("--clear", metavar="OPTION", help="Empty what OPTION sets: --clear expire-time; repeatable."),
    ] = None,
    etag: Annotated[
        str, typer.Option("--etag", metavar="TEXT", help="Only if it still has this one, as `keys get` showed it.")
    ] = "",
    output: Output = Format.TABLE,
) -> None:
    """Change what the options name, and nothing else.

    An option that is repeatable replaces all that was there: two --role leave the key with these two roles.
    """
    now = SystemClock().now()
    words = Words(name, description, owner, default_user, environment, tag)
    restrictions = Restrictions(ip, ip_allowlist, expire_time, rotate_by_time, key_limit)
    key, paths = key_from(words, Grants(role, permission, resource, claims), restrictions, now)
    key.key_id, key.etag = key_id, etag
    mask = FieldMask(paths=[*paths, *_cleared(clear or (), paths)])
    if not mask.paths:
        fail("nothing to change; `latchgate keys update --help` shows what can be", USAGE)
    with administration() as admin:
        response = admin.change(admin.stub.UpdateKey, pb.UpdateKeyRequest(key=key, update_mask=mask))
    print_change(output, response, details(response.key, now), response.propagation)


def _cleared(clear: Iterable[Clearable], paths: Container[str]) -> list[str]:
    """The fields to empty. What is cleared cannot be set as well."""
    for option in clear:
        if CLEARED[option] in paths:
            fail(f"--{option} and --clear {option} exclude each other", USAGE)
    return [CLEARED[option] for option in clear]


key_states.register(app)
key_care.register(app)
key_usage.register(app)
key_import.register(app)
key_reviews.register(app)
app.command("reset-limit")(limits.reset_key_limit)
