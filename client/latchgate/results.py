"""What is asked of VerifyService and what it answers, as values. None of their texts shows a key string."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypedDict

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct, Value

from latchgate.errors import Denied
from latchgate.v1 import decision_pb2, verify_service_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One question: may this key do this, now? Only `key` is required.

    key: the whole key string as the end client presented it. client_ip: the end client's address; a key with an active
    allowlist is denied without. tenant: whose resource is asked for. requires: an expression over permissions, such as
    `orders.read AND NOT orders.frozen`. capability: one that the tenant's plan must include. act_as: the user to act
    as. resource: what is asked for, such as `sites/berlin/orders`. cost: what to take from each limit; 0: see whether 1
    could be taken, and take nothing. method, host, path, user_agent: of the end client's request, for usage records
    alone. at_least_revision: decide on no older state than this; an administrator's change returns its revision.
    """

    key: str = field(repr=False)
    client_ip: str = ""
    tenant: str = ""
    requires: str = ""
    capability: str = ""
    act_as: str = ""
    resource: str = ""
    cost: int = 1
    method: str = ""
    host: str = ""
    path: str = ""
    user_agent: str = ""
    at_least_revision: int = 0

    def to_message(self) -> verify_service_pb2.VerifyRequest:
        """The request."""
        request = verify_service_pb2.VerifyRequest(
            key=self.key,
            client_ip=self.client_ip,
            tenant_id=self.tenant,
            required_permissions=self.requires,
            required_capability=self.capability,
            act_as=self.act_as,
            resource=self.resource,
            at_least_revision=self.at_least_revision,
        )
        if self.cost != 1:
            request.cost = self.cost
        if self.method or self.host or self.path or self.user_agent:
            request.request.method = self.method
            request.request.host = self.host
            request.request.path = self.path
            request.request.user_agent = self.user_agent
        return request


class Question(TypedDict, total=False):
    """The fields of Query but for its key, as arguments of `verify`."""

    client_ip: str
    tenant: str
    requires: str
    capability: str
    act_as: str
    resource: str
    cost: int
    method: str
    host: str
    path: str
    user_agent: str
    at_least_revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a proven key speaks for. user: whom the call acts as. expire_time: None for a key that never expires."""

    key_id: str
    tenant: str
    name: str
    owner: str
    user: str
    roles: tuple[str, ...]
    permissions: tuple[str, ...]
    capabilities: tuple[str, ...]
    resources: tuple[str, ...]
    claims: Mapping[str, Any]
    environment: str
    tags: Mapping[str, str]
    expire_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitStatus:
    """Where one limit stands after the decision.

    kind: `rate_limit` or `quota`. holder: `key` or `tenant`. limit: the most that can be left. reset_after: seconds
    until it is whole again; None: never. per_period: how much may be taken in each period of `period` seconds; None:
    their length varies, or there are none.
    """

    name: str
    kind: str
    holder: str
    limit: int
    remaining: int
    reset_after: float | None
    per_period: int = 0
    period: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """A decision.

    allowed: everything but True is a no. reason: why not, such as `INSUFFICIENT_PERMISSIONS`; empty where allowed.
    message: for people. identity: None until the secret is proven. retry_after: seconds, with `RATE_LIMITED` and
    `QUOTA_EXCEEDED`; None where waiting does not help. revision: of the state that was decided on. stale: whether that
    was the server's memory through an outage of its database, as its operator chose.
    """

    allowed: bool
    reason: str = ""
    message: str = ""
    identity: Identity | None = None
    limits: tuple[LimitStatus, ...] = ()
    retry_after: float | None = None
    revision: int = 0
    stale: bool = False

    def raise_for_denial(self) -> Verification:
        """This very verification where it allows. Raises Denied."""
        if not self.allowed:
            raise Denied(self)
        return self


# Made once: every decision about a key with limits looks names up.
_KINDS = {number: name.removeprefix("KIND_").lower() for name, number in decision_pb2.LimitStatus.Kind.items()}
_HOLDERS = {number: name.removeprefix("HOLDER_").lower() for name, number in decision_pb2.LimitStatus.Holder.items()}


def verification_from(response: verify_service_pb2.VerifyResponse) -> Verification:
    """The decision that a response holds. One without a decision allows nothing."""
    allowed = response.decision == decision_pb2.DECISION_ALLOW
    return Verification(
        allowed=allowed,
        reason="" if allowed else name_of(decision_pb2.DenialReason, response.denial_reason, "DENIAL_REASON_"),
        message=response.message,
        identity=_identity_from(response.identity) if response.HasField("identity") else None,
        limits=tuple(map(limit_status_from, response.limits)),
        retry_after=seconds_of(response.retry_after) if response.HasField("retry_after") else None,
        revision=response.revision,
        stale=response.stale,
    )


def _identity_from(message: decision_pb2.Identity) -> Identity:
    return Identity(
        key_id=message.key_id,
        tenant=message.tenant_id,
        name=message.display_name,
        owner=message.owner,
        user=message.user,
        roles=tuple(message.role_ids),
        permissions=tuple(message.permissions),
        capabilities=tuple(message.capabilities),
        resources=tuple(message.resources),
        claims=object_of(message.claims) if message.HasField("claims") else {},
        environment=message.environment,
        tags=dict(message.tags),
        expire_time=message.expire_time.ToDatetime(UTC) if message.HasField("expire_time") else None,
    )


def limit_status_from(message: decision_pb2.LimitStatus) -> LimitStatus:
    """Where a limit stands."""
    return LimitStatus(
        name=message.name,
        kind=_KINDS.get(message.kind) or str(message.kind),
        holder=_HOLDERS.get(message.holder) or str(message.holder),
        limit=message.limit,
        remaining=message.remaining,
        reset_after=seconds_of(message.reset_after) if message.HasField("reset_after") else None,
        per_period=message.per_period,
        period=seconds_of(message.period) if message.HasField("period") else None,
    )


def object_of(message: Struct) -> dict[str, Any]:
    """The JSON object as Python's own; whole numbers as int."""
    return {name: _plain(value) for name, value in message.fields.items()}


def _plain(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "struct_value":
            return object_of(value.struct_value)
        case "list_value":
            return [_plain(inner) for inner in value.list_value.values]
        case "string_value":
            return value.string_value
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "bool_value":
            return value.bool_value
        case _:
            return None


def name_of(enumeration: Any, number: int, prefix: str) -> str:
    """The value's name; its number where a newer server has values that this client does not know."""
    try:
        return str(enumeration.Name(number)).removeprefix(prefix)
    except ValueError:
        return str(number)


def seconds_of(duration: Duration) -> float:
    """The duration in seconds."""
    return duration.seconds + duration.nanos / 1e9
