"""Commands about roles."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import tenant_pb2
from latchgate_server.cli import key_fields, options, text
from latchgate_server.cli.output import (
    Column,
    Format,
    Output,
    Rows,
    print_change,
    print_deletion,
    print_one,
    print_page,
)
from latchgate_server.cli.parsing import claims_from
from latchgate_server.cli.remote import administration
from latchgate_server.cli.updates import Etag, changes, confirm

app = typer.Typer(help="Roles: named sets of permissions that keys hold.", no_args_is_help=True)

RoleId = Annotated[str, typer.Argument(metavar="ROLE", help="The role's id.")]
Whose = Annotated[
    str, typer.Option("--tenant", metavar="TENANT", help="Whose role; without: your own tenant's or every one's.")
]
_FIELDS = {
    "name": "display_name",
    "description": "description",
    "permission": "permissions",
    "allow-act-as": "allow_act_as",
    "claims": "claims",
}
_COLUMNS = [Column("role", whole=True), Column("tenant"), Column("name"), Column("act as"), Column("permissions")]


class Clearable(StrEnum):
    """What `--clear` can name."""

    NAME = "name"
    DESCRIPTION = "description"
    PERMISSION = "permission"
    CLAIMS = "claims"


@app.command()
def create(
    role_id: Annotated[str, typer.Argument(metavar="ROLE", help="Its id: 1 to 63 of a-z, 0-9, '-', '_' and '.'.")],
    *,
    tenant: Annotated[
        str, typer.Option("--tenant", metavar="TENANT", help="The only tenant whose keys may hold it; without: every.")
    ] = "",
    name: options.Name = "",
    description: options.Description = "",
    permission: options.Permissions = None,
    allow_act_as: Annotated[
        bool, typer.Option("--allow-act-as", help="Keys with it may name the user that they act as.")
    ] = False,
    claims: options.Claims = None,
    output: Output = Format.TABLE,
) -> None:
    """Create a role."""
    role = tenant_pb2.Role(
        role_id=role_id,
        tenant_id=tenant,
        display_name=name,
        description=description,
        permissions=permission,
        allow_act_as=allow_act_as,
        claims=claims_from(claims) if claims is not None else None,
    )
    with administration() as admin:
        response = admin.change(admin.stub.CreateRole, pb.CreateRoleRequest(role=role))
    print_change(output, response, _details(response.role), response.propagation)


@app.command()
def get(role_id: RoleId, tenant: Whose = "", output: Output = Format.TABLE) -> None:
    """Show a role."""
    with administration() as admin:
        response = admin.read(admin.stub.GetRole, pb.GetRoleRequest(role_id=role_id, tenant_id=tenant))
    print_one(output, response, _details(response.role))


@app.command("list")
def list_(
    tenant: Annotated[
        str,
        typer.Option("--tenant", metavar="TENANT", help="Those that it may use; without: that yours may use."),
    ] = "",
    limit: options.Limit = None,
    page_token: options.PageToken = "",
    output: Output = Format.TABLE,
) -> None:
    """List the roles that a tenant may use, those of every tenant among them."""
    request = pb.ListRolesRequest(tenant_id=tenant, page_token=page_token)
    with administration() as admin:
        response = admin.read_list(admin.stub.ListRoles, request, lambda page: page.roles, limit)
    print_page(output, response, _COLUMNS, [_row(role) for role in response.roles], response.next_page_token)


@app.command()
def update(  # noqa: PLR0913 - its parameters are the command's
    role_id: RoleId,
    *,
    tenant: Whose = "",
    name: key_fields.Name = None,
    description: key_fields.Description = None,
    permission: options.Permissions = None,
    allow_act_as: Annotated[
        bool | None,
        typer.Option("--allow-act-as/--no-allow-act-as", help="Whether keys with it may name the user they act as."),
    ] = None,
    claims: options.Claims = None,
    clear: Annotated[list[Clearable] | None, typer.Option("--clear", metavar="OPTION", help=options.CLEAR_HELP)] = None,
    etag: Etag = "",
    output: Output = Format.TABLE,
) -> None:
    """Change what the options name, and nothing else, for every key that holds the role.

    A repeatable option replaces all that was there.
    """
    given = {
        "name": name,
        "description": description,
        "permission": permission,
        "allow-act-as": allow_act_as,
        "claims": None if claims is None else claims_from(claims),
    }
    values, mask = changes(_FIELDS, given, clear or (), "roles update")
    role = tenant_pb2.Role(role_id=role_id, tenant_id=tenant, etag=etag, **values)
    with administration() as admin:
        response = admin.change(admin.stub.UpdateRole, pb.UpdateRoleRequest(role=role, update_mask=mask))
    print_change(output, response, _details(response.role), response.propagation)


@app.command()
def delete(role_id: RoleId, *, tenant: Whose = "", yes: options.Yes = False, output: Output = Format.TABLE) -> None:
    """Remove a role that no key holds."""
    confirm(f"Delete the role {role_id}? It cannot be recovered.", yes)
    with administration() as admin:
        response = admin.change(admin.stub.DeleteRole, pb.DeleteRoleRequest(role_id=role_id, tenant_id=tenant))
    print_deletion(output, response, role_id, response.propagation)


def _row(role: tenant_pb2.Role) -> list[str]:
    act_as = "yes" if role.allow_act_as else ""
    return [role.role_id, role.tenant_id or "(every)", role.display_name, act_as, ", ".join(role.permissions)]


def _details(role: tenant_pb2.Role) -> Rows:
    return [
        ("role", role.role_id),
        ("tenant", role.tenant_id or "(every)"),
        ("name", role.display_name),
        ("description", role.description),
        ("permissions", ", ".join(role.permissions)),
        ("act as", "allowed" if role.allow_act_as else ""),
        ("claims", text.claims(role.claims)),
        ("created", text.moment(role.create_time)),
        ("changed", text.moment(role.update_time)),
        ("etag", role.etag),
    ]
