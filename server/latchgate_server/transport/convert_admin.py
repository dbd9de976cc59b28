"""Tenants, plans, roles and limits: AdminService's messages and the core's values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from latchgate.v1 import admin_service_pb2, key_pb2, tenant_pb2
from latchgate_server.admin.barrier import Propagation
from latchgate_server.admin.paging import PageRequest
from latchgate_server.core import bounds
from latchgate_server.core.errors import InvalidRequest
from latchgate_server.core.model import Limit, Plan, Quota, QuotaPeriod, RateLimit, Role, Tenant
from latchgate_server.transport.fields import Fields, set_claims

# What updates can change.
_TENANT_FIELDS = ("display_name", "plan_id", "limits", "tags")
_PLAN_FIELDS = ("display_name", "capabilities", "key_limits", "tenant_limits", "max_keys")
_ROLE_FIELDS = ("display_name", "description", "permissions", "claims", "allow_act_as")


def tenant_from(message: tenant_pb2.Tenant) -> Tenant:
    """A tenant as it is asked for; output-only fields are not looked at. Raises InvalidRequest."""
    fields = Fields()
    tenant = _tenant_from(fields, message)
    fields.check()
    return tenant


def tenant_changes_from(request: admin_service_pb2.UpdateTenantRequest) -> Mapping[str, object]:
    """The new values of the fields of Tenant that an update names. Raises InvalidRequest."""
    fields = Fields()
    fields.text("tenant.etag", request.tenant.etag, bounds.ETAG_LENGTH)
    paths = fields.paths(request, request.tenant, _TENANT_FIELDS)
    draft = _tenant_from(fields, request.tenant)
    fields.check()
    return {path: getattr(draft, path) for path in paths}


def _tenant_from(fields: Fields, message: tenant_pb2.Tenant) -> Tenant:
    return Tenant(
        tenant_id=fields.tenant_id("tenant.tenant_id", message.tenant_id),
        display_name=fields.text("tenant.display_name", message.display_name, bounds.DISPLAY_NAME_LENGTH),
        plan_id=fields.id("tenant.plan_id", message.plan_id) if message.plan_id else "",
        limits=limits_from(fields, "tenant.limits", message.limits),
        tags=fields.tags("tenant.tags", message.tags),
    )


def tenant_to(tenant: Tenant) -> tenant_pb2.Tenant:
    """The message for a tenant."""
    return tenant_pb2.Tenant(
        tenant_id=tenant.tenant_id,
        display_name=tenant.display_name,
        enabled=tenant.enabled,
        plan_id=tenant.plan_id,
        limits=limits_to(tenant.limits),
        tags=tenant.tags,
        create_time=time_to(tenant.create_time),
        update_time=time_to(tenant.update_time),
        etag=tenant.etag,
    )


def plan_from(message: tenant_pb2.Plan) -> Plan:
    """A plan as it is asked for; output-only fields are not looked at. Raises InvalidRequest."""
    fields = Fields()
    plan = _plan_from(fields, message)
    fields.check()
    return plan


def plan_changes_from(request: admin_service_pb2.UpdatePlanRequest) -> Mapping[str, object]:
    """The new values of the fields of Plan that an update names. Raises InvalidRequest."""
    fields = Fields()
    fields.text("plan.etag", request.plan.etag, bounds.ETAG_LENGTH)
    paths = fields.paths(request, request.plan, _PLAN_FIELDS)
    draft = _plan_from(fields, request.plan)
    fields.check()
    return {path: getattr(draft, path) for path in paths}


def _plan_from(fields: Fields, message: tenant_pb2.Plan) -> Plan:
    return Plan(
        plan_id=fields.id("plan.plan_id", message.plan_id),
        display_name=fields.text("plan.display_name", message.display_name, bounds.DISPLAY_NAME_LENGTH),
        capabilities=fields.capabilities("plan.capabilities", message.capabilities),
        key_limits=limits_from(fields, "plan.key_limits", message.key_limits),
        tenant_limits=limits_from(fields, "plan.tenant_limits", message.tenant_limits),
        max_keys=fields.number("plan.max_keys", message.max_keys, 0, 2**31 - 1),
    )


def plan_to(plan: Plan) -> tenant_pb2.Plan:
    """The message for a plan."""
    return tenant_pb2.Plan(
        plan_id=plan.plan_id,
        display_name=plan.display_name,
        capabilities=plan.capabilities,
        key_limits=limits_to(plan.key_limits),
        tenant_limits=limits_to(plan.tenant_limits),
        max_keys=plan.max_keys,
        create_time=time_to(plan.create_time),
        update_time=time_to(plan.update_time),
        etag=plan.etag,
    )


def role_from(message: tenant_pb2.Role) -> Role:
    """A role as it is asked for; output-only fields are not looked at. Raises InvalidRequest."""
    fields = Fields()
    role = _role_from(fields, message)
    fields.check()
    return role


def role_changes_from(request: admin_service_pb2.UpdateRoleRequest) -> Mapping[str, object]:
    """The new values of the fields of Role that an update names. Raises InvalidRequest."""
    fields = Fields()
    fields.text("role.etag", request.role.etag, bounds.ETAG_LENGTH)
    paths = fields.paths(request, request.role, _ROLE_FIELDS)
    draft = _role_from(fields, request.role)
    fields.check()
    return {path: getattr(draft, path) for path in paths}


def _role_from(fields: Fields, message: tenant_pb2.Role) -> Role:
    return Role(
        role_id=fields.id("role.role_id", message.role_id),
        tenant_id=fields.tenant_id("role.tenant_id", message.tenant_id) if message.tenant_id else "",
        display_name=fields.text("role.display_name", message.display_name, bounds.DISPLAY_NAME_LENGTH),
        description=fields.text("role.description", message.description, bounds.DESCRIPTION_LENGTH, lines=True),
        permissions=fields.grants("role.permissions", message.permissions),
        claims=fields.claims("role.claims", message.claims),
        allow_act_as=message.allow_act_as,
    )


def role_to(role: Role) -> tenant_pb2.Role:
    """The message for a role."""
    message = tenant_pb2.Role(
        role_id=role.role_id,
        tenant_id=role.tenant_id,
        display_name=role.display_name,
        description=role.description,
        permissions=role.permissions,
        allow_act_as=role.allow_act_as,
        create_time=time_to(role.create_time),
        update_time=time_to(role.update_time),
        etag=role.etag,
    )
    set_claims(message.claims, role.claims)
    return message


def limits_from(fields: Fields, path: str, messages: Sequence[key_pb2.Limit]) -> tuple[Limit, ...]:
    """Limits, each of a name of its own."""
    if len(messages) > bounds.LIMITS:
        fields.wrong(path, f"at most {bounds.LIMITS} entries, not {len(messages)}")
        return ()
    limits = [_limit_from(fields, f"{path}[{place}]", message) for place, message in enumerate(messages)]
    if len({limit.name for limit in limits}) < len(limits):
        fields.wrong(path, "each name at most once")
    return tuple(limits)


def _limit_from(fields: Fields, path: str, message: key_pb2.Limit) -> Limit:
    name = fields.limit_name(f"{path}.name", message.name)
    if message.WhichOneof("kind") == "quota":
        value = fields.number(f"{path}.quota.limit", message.quota.limit, 0, bounds.LIMIT_VALUE)
        try:
            return Quota(name, value, QuotaPeriod(message.quota.period))
        except ValueError:
            fields.wrong(f"{path}.quota.period", "a day, a month or a lifetime")
            return Quota(name, value, QuotaPeriod.DAY)
    if message.WhichOneof("kind") is None:
        fields.wrong(path, "a rate_limit or a quota")
        return RateLimit(name, 1, 1)
    rate = message.rate_limit
    return RateLimit(
        name,
        fields.number(f"{path}.rate_limit.limit", rate.limit, 1, bounds.LIMIT_VALUE),
        fields.seconds(f"{path}.rate_limit.period", rate.period, bounds.LIMIT_PERIOD_SECONDS),
        fields.number(f"{path}.rate_limit.burst", rate.burst, 0, bounds.LIMIT_VALUE),
    )


def limits_to(limits: Iterable[Limit]) -> list[key_pb2.Limit]:
    """The messages for limits."""
    return [_limit_to(limit) for limit in limits]


def _limit_to(limit: Limit) -> key_pb2.Limit:
    if isinstance(limit, Quota):
        period = key_pb2.Quota.Period.ValueType(limit.period)
        return key_pb2.Limit(name=limit.name, quota=key_pb2.Quota(limit=limit.limit, period=period))
    rate = key_pb2.RateLimit(limit=limit.limit, period=duration_to(limit.period), burst=limit.burst)
    return key_pb2.Limit(name=limit.name, rate_limit=rate)


def propagation_to(propagation: Propagation) -> admin_service_pb2.Propagation:
    """The message for how far a mutation has travelled."""
    return admin_service_pb2.Propagation(
        revision=propagation.revision,
        replicas_confirmed=propagation.replicas_confirmed,
        leases_expired=propagation.leases_expired,
        waited=duration_to(propagation.waited),
    )


def time_to(time: datetime | None) -> Timestamp | None:
    """The message for a point in time."""
    if time is None:
        return None
    message = Timestamp()
    message.FromDatetime(time)
    return message


def duration_to(seconds: float) -> Duration:
    """The message for a duration in seconds, to the microsecond."""
    message = Duration()
    message.FromMicroseconds(round(seconds * 1e6))
    return message


def tenant_id_from(value: str) -> str:
    """The tenant that a request names. Raises InvalidRequest."""
    fields = Fields()
    fields.tenant_id("tenant_id", value)
    fields.check()
    return value


def optional_tenant_id_from(value: str) -> str:
    """The tenant that a request names, or empty. Raises InvalidRequest."""
    return tenant_id_from(value) if value else ""


def id_from(path: str, value: str) -> str:
    """The plan or role that a request names in the field `path`. Raises InvalidRequest."""
    fields = Fields()
    fields.id(path, value)
    fields.check()
    return value


def reason_from(value: str) -> str:
    """The reason of a change, for the audit log. Raises InvalidRequest."""
    fields = Fields()
    fields.text("reason", value, bounds.REASON_LENGTH)
    fields.check()
    return value


class _Paged(Protocol):
    page_size: int
    page_token: str


def page_from(request: _Paged) -> PageRequest:
    """Which page is asked for. Raises InvalidRequest."""
    if len(request.page_token) > bounds.PAGE_TOKEN_LENGTH:
        raise InvalidRequest.of("page_token", f"at most {bounds.PAGE_TOKEN_LENGTH} characters")
    return PageRequest(request.page_size, request.page_token)
