"""What is asked of VerifyService and what it answers, as values. None of their texts shows a key string."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypedDict, cast

import grpc

from latchgate.decoding import name_of, object_of, seconds_of
from latchgate.errors import Denied, InvalidRequest
from latchgate.unread import Unread, unread
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
        """The request. Raises what `message_of` raises."""
        return message_of(verify_service_pb2.VerifyRequest, self.key, **self.question())

    def question(self) -> Question:
        """Its other fields, as arguments of `verify`."""
        fields: Any = {name: getattr(self, name) for name in Question.__annotations__}
        return cast("Question", fields)


def message_of(  # noqa: PLR0913, PLR0917 - the fields of Query, in their order
    make: Callable[..., verify_service_pb2.VerifyRequest],
    key: str,
    client_ip: str = "",
    tenant: str = "",
    requires: str = "",
    capability: str = "",
    act_as: str = "",
    resource: str = "",
    cost: int = 1,
    method: str = "",
    host: str = "",
    path: str = "",
    user_agent: str = "",
    at_least_revision: int = 0,
) -> verify_service_pb2.VerifyRequest:
    """The request for a question. make: VerifyRequest, or what adds one to a batch.

    Raises InvalidRequest for a text that cannot be sent, without its context, which would show it; TypeError and
    ValueError for values of another type or beyond 64 bits. Then nothing is made.
    """
    more: dict[str, Any] = {} if cost == 1 else {"cost": cost}
    if method or host or path or user_agent:
        more["request"] = {"method": method, "host": host, "path": path, "user_agent": user_agent}
    try:
        return make(
            key=key,
            client_ip=client_ip,
            tenant_id=tenant,
            required_permissions=requires,
            required_capability=capability,
            act_as=act_as,
            resource=resource,
            at_least_revision=at_least_revision,
            **more,
        )
    except UnicodeError:
        pass
    raise InvalidRequest(grpc.StatusCode.INVALID_ARGUMENT, "text that UTF-8 can express is expected")


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
class Identity(Unread):
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

    _kind = decision_pb2.Identity
    _readers = {  # noqa: RUF012 - annotated in the base class
        "key_id": lambda message: message.key_id,
        "tenant": lambda message: message.tenant_id,
        "name": lambda message: message.display_name,
        "owner": lambda message: message.owner,
        "user": lambda message: message.user,
        "roles": lambda message: tuple(message.role_ids),
        "permissions": lambda message: tuple(message.permissions),
        "capabilities": lambda message: tuple(message.capabilities),
        "resources": lambda message: tuple(message.resources),
        "claims": lambda message: object_of(message.claims),
        "environment": lambda message: message.environment,
        "tags": lambda message: dict(message.tags),
        "expire_time": lambda message: message.expire_time.ToDatetime(UTC) if message.HasField("expire_time") else None,
    }


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
class Verification(Unread):
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

    _kind = verify_service_pb2.VerifyResponse
    _readers = {  # noqa: RUF012 - annotated in the base class
        "reason": lambda response: _reason_of(response),  # noqa: PLW0108 - it is defined below
        "message": lambda response: response.message,
        "identity": lambda response: unread(Identity, response.identity) if response.HasField("identity") else None,
        "limits": lambda response: tuple(map(limit_status_from, response.limits)),
        "retry_after": lambda response: seconds_of(response.retry_after) if response.HasField("retry_after") else None,
        "revision": lambda response: response.revision,
        "stale": lambda response: response.stale,
    }

    def raise_for_denial(self) -> Verification:
        """This very verification where it allows. Raises Denied."""
        if not self.allowed:
            raise Denied(self)
        return self


# Made once: every decision about a key with limits looks names up.
_KINDS = {number: name.removeprefix("KIND_").lower() for name, number in decision_pb2.LimitStatus.Kind.items()}
_HOLDERS = {number: name.removeprefix("HOLDER_").lower() for name, number in decision_pb2.LimitStatus.Holder.items()}


def verification_from(response: verify_service_pb2.VerifyResponse, *, is_part: bool = False) -> Verification:
    """The decision that a response holds. One without a decision allows nothing.

    is_part: of a longer message, which is not to be kept for as long as this decision is.
    """
    kept = response.SerializeToString() if is_part else response
    return unread(Verification, kept, allowed=response.decision == decision_pb2.DECISION_ALLOW)


def _reason_of(response: verify_service_pb2.VerifyResponse) -> str:
    if response.decision == decision_pb2.DECISION_ALLOW:
        return ""
    return name_of(decision_pb2.DenialReason, response.denial_reason, "DENIAL_REASON_")


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
