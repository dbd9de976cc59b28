"""Commands about tenants."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import tenant_pb2
from latchgate_server.cli import key_fields, key_usage, limits, options, text
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
from latchgate_server.cli.parsing import limits_from, tags_from
from latchgate_server.cli.remote import administration
from latchgate_server.cli.updates import Etag, changes, confirm
from latchgate_server.system import SystemClock

app = typer.Typer(help="Tenants: the companies, workspaces or teams that keys belong to.", no_args_is_help=True)

TenantId = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's id.")]
_FIELDS = {"name": "display_name", "plan": "plan_id", "tag": "tags", "tenant-limit": "limits"}
_COLUMNS = [Column("tenant", whole=True), Column("name"), Column("plan"), Column("state"), Column("created")]


class Clearable(StrEnum):
    """What `--clear` can name."""

    NAME = "name"
    PLAN = "plan"
    TAG = "tag"
    TENANT_LIMIT = "tenant-limit"


@app.command()
def create(
    tenant_id: Annotated[str, typer.Argument(metavar="TENANT", help="Its id: 1 to 63 of a-z, 0-9 and '-'.")],
    *,
    name: options.Name = "",
    plan: Annotated[str, typer.Option("--plan", metavar="PLAN", help="The plan that it is on.")] = "",
    tag: options.Tags = None,
    tenant_limit: options.TenantLimits = None,
    output: Output = Format.TABLE,
) -> None:
    """Create a tenant, switched on."""
    tenant = tenant_pb2.Tenant(
        tenant_id=tenant_id,
        display_name=name,
        plan_id=plan,
        tags=tags_from(tag or ()),
        limits=limits_from(tenant_limit or (), "--tenant-limit"),
    )
    with administration() as admin:
        response = admin.change(admin.stub.CreateTenant, pb.CreateTenantRequest(tenant=tenant))
    print_change(output, response, _details(response.tenant), response.propagation)


@app.command()
def get(tenant_id: TenantId, output: Output = Format.TABLE) -> None:
    """Show a tenant."""
    with administration() as admin:
        response = admin.read(admin.stub.GetTenant, pb.GetTenantRequest(tenant_id=tenant_id))
    print_one(output, response, _details(response.tenant))


@app.command("list")
def list_(limit: options.Limit = None, page_token: options.PageToken = "", output: Output = Format.TABLE) -> None:
    """List the tenants that you may see."""
    request = pb.ListTenantsRequest(page_token=page_token)
    with administration() as admin:
        response = admin.read_list(admin.stub.ListTenants, request, lambda page: page.tenants, limit)
    now = SystemClock().now()
    print_page(output, response, _COLUMNS, [_row(tenant, now) for tenant in response.tenants], response.next_page_token)


@app.command()
def update(
    tenant_id: TenantId,
    *,
    name: key_fields.Name = None,
    plan: Annotated[str | None, typer.Option("--plan", metavar="PLAN", help="The plan that it is on.")] = None,
    tag: options.Tags = None,
    tenant_limit: options.TenantLimits = None,
    clear: Annotated[list[Clearable] | None, typer.Option("--clear", metavar="OPTION", help=options.CLEAR_HELP)] = None,
    etag: Etag = "",
    output: Output = Format.TABLE,
) -> None:
    """Change what the options name, and nothing else. A repeatable option replaces all that was there."""
    given = {
        "name": name,
        "plan": plan,
        "tag": None if tag is None else tags_from(tag),
        "tenant-limit": None if tenant_limit is None else limits_from(tenant_limit, "--tenant-limit"),
    }
    values, mask = changes(_FIELDS, given, clear or (), "tenants update")
    tenant = tenant_pb2.Tenant(tenant_id=tenant_id, etag=etag, **values)
    with administration() as admin:
        response = admin.change(admin.stub.UpdateTenant, pb.UpdateTenantRequest(tenant=tenant, update_mask=mask))
    print_change(output, response, _details(response.tenant), response.propagation)


@app.command()
def enable(tenant_id: TenantId, reason: options.Reason = "", output: Output = Format.TABLE) -> None:
    """Let a disabled tenant's keys work again."""
    request = pb.EnableTenantRequest(tenant_id=tenant_id, reason=reason)
    with administration() as admin:
        response = admin.change(admin.stub.EnableTenant, request)
    print_change(output, response, _details(response.tenant), response.propagation)


@app.command()
def disable(tenant_id: TenantId, reason: options.Reason = "", output: Output = Format.TABLE) -> None:
    """Deny every key of a tenant until it is enabled."""
    request = pb.DisableTenantRequest(tenant_id=tenant_id, reason=reason)
    with administration() as admin:
        response = admin.change(admin.stub.DisableTenant, request)
    print_change(output, response, _details(response.tenant), response.propagation)


@app.command()
def delete(
    tenant_id: TenantId, reason: options.Reason = "", yes: options.Yes = False, output: Output = Format.TABLE
) -> None:
    """Remove a tenant with all of its keys and roles; their audit events stay."""
    confirm(f"Delete the tenant {tenant_id} with all of its keys and roles? They cannot be recovered.", yes)
    request = pb.DeleteTenantRequest(tenant_id=tenant_id, reason=reason)
    with administration() as admin:
        response = admin.change(admin.stub.DeleteTenant, request)
    print_deletion(output, response, tenant_id, response.propagation)


@app.command()
def usage(
    tenant_id: TenantId,
    *,
    by: key_usage.By = key_usage.Interval.HOUR,
    since: key_usage.Since = None,
    until: key_usage.Until = None,
    output: Output = Format.TABLE,
) -> None:
    """Show how often the tenant's keys were allowed and denied, in a chart."""
    key_usage.show_usage(pb.GetUsageRequest(tenant_id=tenant_id), by, since, until, output)


app.command("reset-limit")(limits.reset_tenant_limit)


def _state(tenant: tenant_pb2.Tenant) -> str:
    return "enabled" if tenant.enabled else "disabled"


def _row(tenant: tenant_pb2.Tenant, now: float) -> list[str]:
    created = text.distance(tenant.create_time, now)
    return [tenant.tenant_id, tenant.display_name, tenant.plan_id, _state(tenant), created]


def _details(tenant: tenant_pb2.Tenant) -> Rows:
    return [
        ("tenant", tenant.tenant_id),
        ("name", tenant.display_name),
        ("state", _state(tenant)),
        ("plan", tenant.plan_id),
        ("limits", text.limits(tenant.limits)),
        ("tags", text.tags(tenant.tags)),
        ("created", text.moment(tenant.create_time)),
        ("changed", text.moment(tenant.update_time)),
        ("etag", tenant.etag),
    ]
