"""Between rows of the database and the values of core/model.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from sys import intern
from typing import Any, cast

from latchgate_server.core.addresses import MalformedAddress
from latchgate_server.core.charging import Holder, Reset
from latchgate_server.core.errors import CannotDecide
from latchgate_server.core.model import (
    HashProfile,
    Key,
    KeyState,
    LastUse,
    Limit,
    Plan,
    Quota,
    QuotaPeriod,
    RateLimit,
    Role,
    SecretHash,
    Tenant,
)
from latchgate_server.core.ports import Loaded
from latchgate_server.core.record import Record, build_record

Row = Mapping[str, Any]
"""A row by column, as asyncpg gives it: what its columns hold is known from the SQL alone."""


def tenant_from(row: Row) -> Tenant:
    """A tenant from the columns `tenant`."""
    return Tenant(
        tenant_id=row["tenant_id"],
        display_name=row["display_name"],
        enabled=row["enabled"],
        plan_id=row["plan_id"],
        limits=limits_from(row["limits"]),
        tags=row["tags"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        etag=str(row["etag"]),
    )


def plan_from(row: Row) -> Plan:
    """A plan from the columns `plan`."""
    return Plan(
        plan_id=row["plan_id"],
        display_name=row["display_name"],
        capabilities=tuple(row["capabilities"]),
        key_limits=limits_from(row["key_limits"]),
        tenant_limits=limits_from(row["tenant_limits"]),
        max_keys=row["max_keys"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        etag=str(row["etag"]),
    )


def role_from(row: Row) -> Role:
    """A role from the columns `role`."""
    return Role(
        role_id=row["role_id"],
        tenant_id=row["tenant_id"],
        display_name=row["display_name"],
        description=row["description"],
        permissions=tuple(row["permissions"]),
        claims=row["claims"],
        allow_act_as=row["allow_act_as"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        etag=str(row["etag"]),
    )


def key_from(row: Row) -> Key:
    """A key from the columns `key` and `role_ids`."""
    return Key(
        key_id=row["key_id"],
        tenant_id=row["tenant_id"],
        display_name=row["display_name"],
        description=row["description"],
        owner=row["owner"],
        default_user=row["default_user"],
        role_ids=tuple(row["role_ids"]),
        permissions=tuple(row["permissions"]),
        claims=row["claims"],
        environment=row["environment"],
        tags=row["tags"],
        ip_allowlist_enabled=row["ip_allowlist_enabled"],
        ip_allowlist=tuple(row["ip_allowlist"]),
        resources=tuple(row["resources"]),
        expire_time=row["expire_time"],
        expired=row["expired"],
        rotate_by_time=row["rotate_by_time"],
        limits=limits_from(row["limits"]),
        state=KeyState[row["state"]],
        create_time=row["create_time"],
        created_by=row["created_by"],
        update_time=row["update_time"],
        revoke_time=row["revoke_time"],
        revocation_reason=row["revocation_reason"],
        lineage_id=row["lineage_id"],
        predecessor_key_id=row["predecessor_key_id"],
        successor_key_id=row["successor_key_id"],
        etag=str(row["etag"]),
        last_use=_last_use_from(row),
    )


def _last_use_from(row: Row) -> LastUse | None:
    """From the columns `last_use`, where the statement has them."""
    time = row.get("last_use_time")
    if time is None:
        return None
    return LastUse(time=time, client_ip=row["last_use_ip"], user=row["last_use_user"], user_agent=row["last_use_agent"])


def loaded_from(row: Row) -> Loaded:
    """What a row of `load_records` says: a record, none, or one that no use case could have written.

    The last is what SQL typed by hand can leave, such as a malformed address. It is reported instead of raised, so that
    one such key does not spoil the load of others.
    """
    revision = _revision(row["snapshot_revision"])
    if row["key_id"] is None:
        return Loaded(None, revision)
    try:
        return Loaded(_record_from(row, revision), revision)
    except (MalformedAddress, ArithmeticError, KeyError, TypeError, ValueError):
        return Loaded(CannotDecide(f"the stored key {row['key_id']} is malformed; an update repairs it"), revision)


def _record_from(row: Row, revision: int) -> Record:
    plan = None
    if row["plan_id"]:
        plan = Plan(
            plan_id=row["plan_id"],
            capabilities=tuple(row["capabilities"]),
            key_limits=limits_from(row["plan_key_limits"]),
            tenant_limits=limits_from(row["plan_tenant_limits"]),
        )
    return build_record(
        key=key_from(row),
        secret=SecretHash(
            profile=HashProfile(row["profile"]), pepper_id=intern(row["pepper_id"]), phc=row["phc"], tag=row["tag"]
        ),
        tenant=Tenant(
            tenant_id=row["tenant_id"],
            enabled=row["tenant_enabled"],
            plan_id=row["plan_id"],
            limits=limits_from(row["tenant_limits"]),
            create_time=row["tenant_create_time"],
        ),
        plan=plan,
        roles=[(role["number"], _held_role(role)) for role in row["roles"]],
        resets={
            (Holder[reset["holder"]], reset["name"]): Reset(reset["revision"], reset["spent"], float(reset["time"]))
            for reset in row["resets"]
        },
        revision=revision,
    )


def _held_role(role: Mapping[str, Any]) -> Role:
    return Role(
        role_id=role["role_id"],
        permissions=tuple(role["permissions"]),
        claims=role["claims"],
        allow_act_as=role["allow_act_as"],
    )


def limits_from(stored: Sequence[Mapping[str, object]]) -> tuple[Limit, ...]:
    """Limits from their JSON form, the inverse of `limits_to`."""
    limits: list[Limit] = []
    for entry in stored:
        name, limit = str(entry["name"]), cast(int, entry["limit"])
        if "quota_period" in entry:
            limits.append(_quota(name, limit, QuotaPeriod[str(entry["quota_period"])]))
        else:
            limits.append(_rate_limit(name, limit, cast(float, entry["period"]), cast(int, entry["burst"])))
    return tuple(limits)


# Keys have few different limits, and many are read in one snapshot. What is the same is one value.
_revision = lru_cache(maxsize=64)(int)
_quota = lru_cache(maxsize=1_024)(Quota)
_rate_limit = lru_cache(maxsize=1_024)(RateLimit)


def limits_to(limits: Sequence[Limit]) -> list[Mapping[str, object]]:
    """The JSON form of limits: `{name, limit, period, burst}` or `{name, limit, quota_period}`."""
    return [
        {"name": limit.name, "limit": limit.limit, "quota_period": limit.period.name}
        if isinstance(limit, Quota)
        else {"name": limit.name, "limit": limit.limit, "period": limit.period, "burst": limit.burst}
        for limit in limits
    ]
