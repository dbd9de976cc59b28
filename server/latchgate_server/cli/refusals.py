"""What a gRPC error means, in one line for whoever typed the command."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from latchgate_server.cli.connection import tls_advice

_NOT_CONNECTED = re.compile("failed to connect|connection refused|resol", re.IGNORECASE)

# The options and arguments behind the fields that a server may find wrong. Where a field is another option in another
# request, the request's part of its path is there too.
_TYPED: Mapping[str, str] = {
    "act_as": "--act-as",
    "capabilities": "--capability",
    "claims": "--claims",
    "default_user": "--default-user",
    "description": "--description",
    "display_name": "--name",
    "environment": "--environment",
    "expire_time": "--expire-time",
    "expires_before": "--expires-before",
    "filter.role_id": "--role",
    "filter.states": "--state",
    "filter.tenant_id": "--tenant",
    "ip_allowlist.ranges": "--ip",
    "key.limits": "--key-limit",
    "key.tenant_id": "--tenant",
    "key_id": "the key id",
    "key_limits": "--key-limit",
    "max_keys": "--max-keys",
    "owner": "--owner",
    "page_token": "--page-token",
    "permissions": "--permission",
    "plan_id": "the plan's id",
    "prefix": "--prefix",
    "reason": "--reason",
    "request_id": "--request-id",
    "required_permissions": "--requires",
    "resources": "--resource",
    "role.tenant_id": "--tenant",
    "role_id": "the role's id",
    "role_ids": "--role",
    "rotate_by_time": "--rotate-by-time",
    "rotation_due_before": "--rotation-due-before",
    "search": "--search",
    "tags": "--tag",
    "tenant.limits": "--tenant-limit",
    "tenant.plan_id": "--plan",
    "tenant_id": "the tenant's id",
    "tenant_limits": "--tenant-limit",
}
_PARTS = re.compile(r"((?:key|tenant|plan|role|filter)\.)?([a-z_]+(?:\.ranges)?)(?:\[(\d+)\])?(?:\.(.+))?")


@dataclass(frozen=True, slots=True)
class Called:
    """A call that failed.

    address, variable: of its server, and what that was told by. seconds: how long an answer could take. changes:
    whether something may have been changed. key_source: where the caller's key came from, or would have.
    """

    address: str
    variable: str
    seconds: float
    changes: bool
    key_source: str = ""


def told(error: grpc.RpcError, called: Called) -> str:
    """One line that says what went wrong, and what to do about it where that is known."""
    code, details = error.code(), " ".join((error.details() or "").split())
    status = _status(error)
    if status is not None:
        return _told_by_server(status, called)
    if code is grpc.StatusCode.UNAVAILABLE and (advice := tls_advice(called.address, details)):
        return advice
    if code is grpc.StatusCode.UNAVAILABLE and _NOT_CONNECTED.search(details):
        return f"nothing answers at {called.address}; is latchgate running? ({called.variable} says where)"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return f"{called.address} does not offer this call: {details} ({called.variable} says where)"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"{called.address} did not answer within {called.seconds:.0f}s{_perhaps_done(called)}"
    if code is grpc.StatusCode.UNAVAILABLE:
        return f"the connection to {called.address} broke: {details}{_perhaps_done(called)}"
    return f"{details or 'no reason was given'} ({code.name})"


def refused_parts(error: grpc.RpcError) -> list[tuple[str, str]]:
    """The fields of the request that were refused, each with the reason; none where it failed for something else."""
    status, bad = _status(error), error_details_pb2.BadRequest()
    for detail in status.details if status else ():
        if detail.Unpack(bad):
            return [(found.field, found.description) for found in bad.field_violations]
    return []


def _status(error: grpc.RpcError) -> status_pb2.Status | None:
    """The google.rpc.Status of the error, where the server sent one that agrees with its code."""
    try:
        status: status_pb2.Status | None = rpc_status.from_call(cast(grpc.Call, error))
    except ValueError:
        return None
    return status


def _told_by_server(status: status_pb2.Status, called: Called) -> str:
    message, hint = status.message, ""
    for detail in status.details:
        bad, info, retry = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(bad):
            message = "; ".join(f"{typed(found.field)}: {found.description}" for found in bad.field_violations)
        elif detail.Unpack(info) and info.reason in ("ADMIN_KEY_REJECTED", "CALLER_KEY_REJECTED"):
            hint = _about_key(info, called)
        elif detail.Unpack(retry):
            hint = f"; try again in {max(1, retry.retry_delay.seconds)}s{_perhaps_done(called)}"
    return message + hint


def _about_key(info: error_details_pb2.ErrorInfo, called: Called) -> str:
    if info.metadata["denial_reason"] == "MISSING_API_KEY":
        return f"; {called.key_source} is where `latchgate` takes it from"
    return f"; it came from {called.key_source}"


def typed(field: str) -> str:
    """What was typed for a field of a request: the second of `key.permissions` is `--permission 2`."""
    parts = _PARTS.fullmatch(field)
    if parts is None:
        return field
    request, name, place, within = parts.groups(default="")
    option = _TYPED.get(request + name) or _TYPED.get(name)
    if option is None:
        return field
    return option + (f" {int(place) + 1}" if place else "") + (f" ({within.rpartition('.')[2]})" if within else "")


def _perhaps_done(called: Called) -> str:
    return "; the change may have been made all the same, so look before you repeat it" if called.changes else ""
