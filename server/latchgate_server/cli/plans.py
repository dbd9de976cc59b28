"""Commands about plans."""

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
from latchgate_server.cli.parsing import limits_from
from latchgate_server.cli.remote import administration
from latchgate_server.cli.updates import Etag, changes, confirm

app = typer.Typer(help="Plans: what tenants have bought.", no_args_is_help=True)

PlanId = Annotated[str, typer.Argument(metavar="PLAN", help="The plan's id.")]
Capabilities = Annotated[
    list[str] | None,
    typer.Option("--capability", metavar="NAME", help="What `verify --capability` can ask for; repeatable."),
]
_FIELDS = {
    "name": "display_name",
    "capability": "capabilities",
    "max-keys": "max_keys",
    "key-limit": "key_limits",
    "tenant-limit": "tenant_limits",
}
_COLUMNS = [Column("plan", whole=True), Column("name"), Column("max keys"), Column("capabilities"), Column("limits")]


class Clearable(StrEnum):
    """What `--clear` can name."""

    NAME = "name"
    CAPABILITY = "capability"
    MAX_KEYS = "max-keys"
    KEY_LIMIT = "key-limit"
    TENANT_LIMIT = "tenant-limit"


@app.command()
def create(
    plan_id: Annotated[str, typer.Argument(metavar="PLAN", help="Its id: 1 to 63 of a-z, 0-9, '-', '_' and '.'.")],
    *,
    name: options.Name = "",
    capability: Capabilities = None,
    max_keys: Annotated[
        int, typer.Option("--max-keys", metavar="N", min=0, max=2**31 - 1, help="The most keys of a tenant; 0: any.")
    ] = 0,
    key_limit: options.KeyLimits = None,
    tenant_limit: options.TenantLimits = None,
    output: Output = Format.TABLE,
) -> None:
    """Create a plan."""
    plan = tenant_pb2.Plan(
        plan_id=plan_id,
        display_name=name,
        capabilities=capability,
        max_keys=max_keys,
        key_limits=limits_from(key_limit or (), "--key-limit"),
        tenant_limits=limits_from(tenant_limit or (), "--tenant-limit"),
    )
    with administration() as admin:
        response = admin.change(admin.stub.CreatePlan, pb.CreatePlanRequest(plan=plan))
    print_change(output, response, _details(response.plan), response.propagation)


@app.command()
def get(plan_id: PlanId, output: Output = Format.TABLE) -> None:
    """Show a plan."""
    with administration() as admin:
        response = admin.read(admin.stub.GetPlan, pb.GetPlanRequest(plan_id=plan_id))
    print_one(output, response, _details(response.plan))


@app.command("list")
def list_(limit: options.Limit = None, page_token: options.PageToken = "", output: Output = Format.TABLE) -> None:
    """List the plans."""
    request = pb.ListPlansRequest(page_token=page_token)
    with administration() as admin:
        response = admin.read_list(admin.stub.ListPlans, request, lambda page: page.plans, limit)
    print_page(output, response, _COLUMNS, [_row(plan) for plan in response.plans], response.next_page_token)


@app.command()
def update(  # noqa: PLR0913 - its parameters are the command's
    plan_id: PlanId,
    *,
    name: key_fields.Name = None,
    capability: Capabilities = None,
    max_keys: Annotated[
        int | None, typer.Option("--max-keys", metavar="N", min=0, max=2**31 - 1, help="The most keys; 0: any number.")
    ] = None,
    key_limit: options.KeyLimits = None,
    tenant_limit: options.TenantLimits = None,
    clear: Annotated[list[Clearable] | None, typer.Option("--clear", metavar="OPTION", help=options.CLEAR_HELP)] = None,
    etag: Etag = "",
    output: Output = Format.TABLE,
) -> None:
    """Change what the options name, and nothing else, for every tenant that is on the plan.

    A repeatable option replaces all that was there.
    """
    given = {
        "name": name,
        "capability": capability,
        "max-keys": max_keys,
        "key-limit": None if key_limit is None else limits_from(key_limit, "--key-limit"),
        "tenant-limit": None if tenant_limit is None else limits_from(tenant_limit, "--tenant-limit"),
    }
    values, mask = changes(_FIELDS, given, clear or (), "plans update")
    plan = tenant_pb2.Plan(plan_id=plan_id, etag=etag, **values)
    with administration() as admin:
        response = admin.change(admin.stub.UpdatePlan, pb.UpdatePlanRequest(plan=plan, update_mask=mask))
    print_change(output, response, _details(response.plan), response.propagation)


@app.command()
def delete(plan_id: PlanId, yes: options.Yes = False, output: Output = Format.TABLE) -> None:
    """Remove a plan that no tenant is on."""
    confirm(f"Delete the plan {plan_id}? It cannot be recovered.", yes)
    with administration() as admin:
        response = admin.change(admin.stub.DeletePlan, pb.DeletePlanRequest(plan_id=plan_id))
    print_deletion(output, response, plan_id, response.propagation)


def _row(plan: tenant_pb2.Plan) -> list[str]:
    limits = text.limits([*plan.key_limits, *plan.tenant_limits])
    return [plan.plan_id, plan.display_name, str(plan.max_keys or ""), ", ".join(plan.capabilities), limits]


def _details(plan: tenant_pb2.Plan) -> Rows:
    return [
        ("plan", plan.plan_id),
        ("name", plan.display_name),
        ("capabilities", ", ".join(plan.capabilities)),
        ("max keys", str(plan.max_keys) if plan.max_keys else "any number"),
        ("key limits", text.limits(plan.key_limits)),
        ("tenant limits", text.limits(plan.tenant_limits)),
        ("created", text.moment(plan.create_time)),
        ("changed", text.moment(plan.update_time)),
        ("etag", plan.etag),
    ]
