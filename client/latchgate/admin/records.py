"""What happened: the uses of keys, counted and one by one, and the audit log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from latchgate.admin.calls import PAGE_SIZE, Call, Listing, reads
from latchgate.admin.fields import duration_to, put_time, time_from
from latchgate.admin.values import denial_reason_from
from latchgate.decoding import object_of
from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import audit_pb2, decision_pb2

_BUCKETS = {"hour": timedelta(hours=1), "day": timedelta(days=1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageBucket:
    """Decisions within one hour or day. allowed: how many. denied: how many, by reason, such as `RATE_LIMITED`."""

    start_time: datetime
    length: timedelta
    allowed: int
    denied: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUse:
    """One decision about a proven key. reason: empty where allowed. The rest is empty where it was not told."""

    time: datetime
    allowed: bool
    reason: str
    client_ip: str
    user: str
    method: str
    host: str
    path: str
    user_agent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySource:
    """An address that a key was used from, and how many times."""

    client_ip: str
    first_use_time: datetime
    last_use_time: datetime
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BusyKey:
    """How often a key was used since this hour began, in UTC, and in the whole hour before it."""

    key_id: str
    tenant: str
    display_name: str
    uses_this_hour: int
    uses_hour_before: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One change. before, after: the changed fields; None where there was, or is, nothing. Never a secret or its hash.

    actor: an administrator's key id, or `system`. method: the RPC. target_type: `key`, `tenant` and so on. hash: over
    this event and the one before; `latchgate audit verify` checks the chain.
    """

    sequence: int
    time: datetime
    tenant: str
    actor: str
    actor_ip: str
    method: str
    target_type: str
    target_id: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    reason: str
    revision: int
    hash: bytes


def get_usage(
    *,
    key_id: str = "",
    tenant: str = "",
    start_time: datetime,
    end_time: datetime | None = None,
    bucket: Literal["hour", "day"] = "hour",
) -> Call[tuple[UsageBucket, ...]]:
    """Count the decisions about a key, or else about all keys of a tenant, in buckets without gaps.

    start_time: included. end_time: not included; None: now. Raises ValueError unless one subject is given.
    """
    if bool(key_id) == bool(tenant):
        raise ValueError("either key_id or tenant is expected")
    request = pb.GetUsageRequest(bucket_length=duration_to(_BUCKETS[bucket]))
    if key_id:
        request.key_id = key_id
    else:
        request.tenant_id = tenant
    put_time(request, "start_time", start_time)
    put_time(request, "end_time", end_time)
    return reads("GetUsage", request, lambda response: tuple(map(_usage_bucket_from, response.buckets)))


def list_key_uses(key_id: str) -> Call[tuple[KeyUse, ...]]:
    """The latest decisions about a key, newest first: up to 100, all in one answer."""
    request = pb.ListKeyUsesRequest(key_id=key_id)
    return reads("ListKeyUses", request, lambda response: tuple(map(_key_use_from, response.uses)))


def list_key_sources(key_id: str, *, page_size: int = PAGE_SIZE) -> Listing[KeySource]:
    """The addresses that a key was used from."""
    request = pb.ListKeySourcesRequest(key_id=key_id, page_size=page_size)
    return Listing(rpc="ListKeySources", request=request, entries=lambda response: map(_source_from, response.sources))


def list_busiest_keys(*, tenant: str = "", page_size: int = PAGE_SIZE) -> Call[tuple[BusyKey, ...]]:
    """The keys that were used most in this hour and the one before it, the most used first, all in one answer.

    tenant: whose keys; empty: those of every tenant that the caller may see. page_size: at most so many, up to 100.
    """
    request = pb.ListBusiestKeysRequest(tenant_id=tenant, page_size=page_size)
    return reads("ListBusiestKeys", request, lambda response: tuple(map(_busy_key_from, response.keys)))


def list_audit_events(
    *,
    tenant: str = "",
    target_id: str = "",
    actor: str = "",
    start_time: datetime | None = None,
    end_time: datetime | None = None,
    page_size: int = PAGE_SIZE,
) -> Listing[AuditEvent]:
    """What administrators changed, newest first.

    tenant: empty: every tenant that the caller may see. target_id: of exactly this key, role, plan or tenant. actor: a
    key id, or `system`. start_time: included. end_time: not included.
    """
    request = pb.ListAuditEventsRequest(tenant_id=tenant, target_id=target_id, actor=actor, page_size=page_size)
    put_time(request, "start_time", start_time)
    put_time(request, "end_time", end_time)
    return Listing(rpc="ListAuditEvents", request=request, entries=lambda response: map(_event_from, response.events))


def _usage_bucket_from(message: audit_pb2.UsageBucket) -> UsageBucket:
    return UsageBucket(
        start_time=time_from(message.start_time),
        length=message.length.ToTimedelta(),
        allowed=message.allowed,
        denied=dict(message.denied),
    )


def _key_use_from(message: audit_pb2.KeyUse) -> KeyUse:
    return KeyUse(
        time=time_from(message.time),
        allowed=message.decision == decision_pb2.DECISION_ALLOW,
        reason=denial_reason_from(message.denial_reason),
        client_ip=message.client_ip,
        user=message.user,
        method=message.method,
        host=message.host,
        path=message.path,
        user_agent=message.user_agent,
    )


def _source_from(message: audit_pb2.KeySource) -> KeySource:
    return KeySource(
        client_ip=message.client_ip,
        first_use_time=time_from(message.first_use_time),
        last_use_time=time_from(message.last_use_time),
        count=message.count,
    )


def _busy_key_from(message: audit_pb2.BusyKey) -> BusyKey:
    return BusyKey(
        key_id=message.key_id,
        tenant=message.tenant_id,
        display_name=message.display_name,
        uses_this_hour=message.uses_this_hour,
        uses_hour_before=message.uses_hour_before,
    )


def _event_from(message: audit_pb2.AuditEvent) -> AuditEvent:
    return AuditEvent(
        sequence=message.sequence,
        time=time_from(message.time),
        tenant=message.tenant_id,
        actor=message.actor,
        actor_ip=message.actor_ip,
        method=message.method,
        target_type=message.target_type,
        target_id=message.target_id,
        before=object_of(message.before) if message.HasField("before") else None,
        after=object_of(message.after) if message.HasField("after") else None,
        reason=message.reason,
        revision=message.revision,
        hash=message.hash,
    )
