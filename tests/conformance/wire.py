"""Errors as a client meets them, decoded in one place. What holds for every one of them is asserted here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

DOMAIN = "latchgate.v1"
METADATA_LIMIT = 8 * 1024
"""What gRPC clients take of an answer's metadata, unless told otherwise."""


@dataclass(frozen=True)
class Refusal:
    """An RPC that ended in an error.

    reason, metadata: of google.rpc.ErrorInfo, empty where there is none. fields: those that google.rpc.BadRequest
    names. retry_after: seconds of google.rpc.RetryInfo, None where there is none. raw: all metadata that came with it.
    """

    code: grpc.StatusCode
    message: str
    raw: str
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    fields: tuple[str, ...] = ()
    descriptions: tuple[str, ...] = ()
    retry_after: float | None = None


def refusal(call: Callable[..., object], *arguments: object, **named: object) -> Refusal:
    """How the call with these arguments is refused. Fails where it is not."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **named)
    return refusal_of(caught.value)


def code_of(call: Callable[..., object], *arguments: object, **named: object) -> grpc.StatusCode:
    """The code that the call with these arguments ends with, OK or not."""
    try:
        call(*arguments, **named)
    except grpc.RpcError as error:
        return refusal_of(error).code
    return grpc.StatusCode.OK


def refusal_of(error: Any) -> Refusal:
    """The error, which gRPC raises as an RpcError that is a Call as well, as a value."""
    trailing = [(name, value) for name, value in error.trailing_metadata() or ()]
    size = len(error.details().encode()) + sum(len(name) + len(value) for name, value in trailing)
    assert size < METADATA_LIMIT, "some clients would tell of metadata that is too large, and of nothing else"
    told = Refusal(error.code(), error.details(), repr(trailing))
    status = rpc_status.from_call(error)
    if status is None:
        return told
    assert (status.code, status.message) == (error.code().value[0], error.details())
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    for detail in status.details:
        assert detail.Unpack(info) or detail.Unpack(bad) or detail.Unpack(retry), "another detail than we document"
    assert info.domain == (DOMAIN if info.reason else "")
    return Refusal(
        code=told.code,
        message=told.message,
        raw=told.raw,
        reason=info.reason,
        metadata=dict(info.metadata),
        fields=tuple(violation.field for violation in bad.field_violations),
        descriptions=tuple(violation.description for violation in bad.field_violations),
        retry_after=retry.retry_delay.ToNanoseconds() / 1e9 if retry.HasField("retry_delay") else None,
    )
