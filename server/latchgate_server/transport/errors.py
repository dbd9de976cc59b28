"""What each error of the core becomes on the wire: the only mapping. What has no row is INTERNAL and tells nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from latchgate_server import tracing
from latchgate_server.core import errors
from latchgate_server.spans import TraceAttribute
from latchgate_server.transport.convert_admin import duration_to
from latchgate_server.transport.request_ids import REQUEST_ID

DOMAIN = "latchgate.v1"
INTERNAL_MESSAGE = "internal error; the server's log has the details"
_STATUS_METADATA = "grpc-status-details-bin"

Context = grpc.aio.ServicerContext[Any, Any]


class _Row:
    """code: gRPC's. reason: the name in ErrorReason. metadata: what ErrorInfo tells of the error."""

    def __init__(
        self, code: grpc.StatusCode, reason: str = "", metadata: Callable[[Any], Mapping[str, str]] = lambda _: {}
    ) -> None:
        self.code = code
        self.reason = reason
        self.metadata = metadata


def _resource(error: Any) -> Mapping[str, str]:
    return {"type": error.type, "id": error.id}


_CODE = grpc.StatusCode
_ROWS: Mapping[type[errors.LatchgateError], _Row] = {
    errors.InvalidRequest: _Row(_CODE.INVALID_ARGUMENT, "INVALID_FIELD"),
    errors.AdminKeyRejected: _Row(
        _CODE.UNAUTHENTICATED, "ADMIN_KEY_REJECTED", lambda e: {"denial_reason": e.denial_reason.name}
    ),
    errors.CallerKeyRejected: _Row(
        _CODE.UNAUTHENTICATED, "CALLER_KEY_REJECTED", lambda e: {"denial_reason": e.denial_reason.name}
    ),
    errors.PermissionMissing: _Row(
        _CODE.PERMISSION_DENIED, "PERMISSION_MISSING", lambda e: {"permission": e.permission}
    ),
    errors.EscalationRefused: _Row(
        _CODE.PERMISSION_DENIED, "ESCALATION_REFUSED", lambda e: {"permission": e.permission}
    ),
    errors.ResourceNotFound: _Row(_CODE.NOT_FOUND, "RESOURCE_NOT_FOUND", _resource),
    errors.ResourceExists: _Row(_CODE.ALREADY_EXISTS, "RESOURCE_EXISTS", _resource),
    errors.EtagMismatch: _Row(_CODE.ABORTED, "ETAG_MISMATCH", _resource),
    errors.IllegalTransition: _Row(_CODE.FAILED_PRECONDITION, "ILLEGAL_TRANSITION", lambda e: {"state": e.state.name}),
    errors.ResourceInUse: _Row(_CODE.FAILED_PRECONDITION, "RESOURCE_IN_USE", _resource),
    errors.KeyLimitReached: _Row(_CODE.RESOURCE_EXHAUSTED, "KEY_LIMIT_REACHED", lambda e: {"limit": str(e.limit)}),
    errors.LastAdministrator: _Row(_CODE.FAILED_PRECONDITION, "LAST_ADMINISTRATOR"),
    errors.RevisionNotReached: _Row(_CODE.FAILED_PRECONDITION),
    errors.StoreUnavailable: _Row(_CODE.UNAVAILABLE, "STORE_UNAVAILABLE"),
    errors.Overloaded: _Row(_CODE.RESOURCE_EXHAUSTED, "OVERLOADED"),
    errors.PepperMissing: _Row(_CODE.UNAVAILABLE),
    errors.CannotDecide: _Row(_CODE.UNAVAILABLE),
}

# https://opentelemetry.io/docs/specs/semconv/rpc/grpc/: of a server's spans, what is the caller's mistake is no error.
_FAILURES = frozenset(
    {_CODE.UNKNOWN, _CODE.DEADLINE_EXCEEDED, _CODE.UNIMPLEMENTED, _CODE.INTERNAL, _CODE.UNAVAILABLE, _CODE.DATA_LOSS}
)


async def abort(context: Context, error: Exception, request_id: str) -> NoReturn:
    """End the call with what the error becomes on the wire. request_id: by which the log knows the call."""
    code, message, metadata = status_of(error)
    if code is grpc.StatusCode.INTERNAL:
        message = message_of(error, request_id)
    tracing.note({TraceAttribute.RPC_CODE: code.value[0]})
    if code in _FAILURES:
        tracing.note_failure(error)
    await context.abort(code, message, (*metadata, (REQUEST_ID, request_id)))


def status_of(error: Exception) -> tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]:
    """What the error becomes on the wire: code, message and trailing metadata."""
    row = _ROWS.get(type(error))  # type: ignore[arg-type]  # other exceptions have no row, and so fail closed
    if row is None:
        return grpc.StatusCode.INTERNAL, INTERNAL_MESSAGE, ()
    status = status_pb2.Status(code=row.code.value[0], message=str(error))
    status.details.extend(_details(row, error))
    return row.code, str(error), ((_STATUS_METADATA, status.SerializeToString()),)


def code_of(error: Exception) -> grpc.StatusCode:
    """The code that `abort` gives the error."""
    row = _ROWS.get(type(error))  # type: ignore[arg-type]  # as above
    return row.code if row else grpc.StatusCode.INTERNAL


def message_of(error: Exception, request_id: str) -> str:
    """The message that `abort` gives the error."""
    return str(error) if type(error) in _ROWS else f"{INTERNAL_MESSAGE} under request id {request_id}"


def _details(row: _Row, error: Exception) -> list[AnyMessage]:
    details: list[Message] = []
    if row.reason:
        details.append(error_details_pb2.ErrorInfo(reason=row.reason, domain=DOMAIN, metadata=row.metadata(error)))
    if isinstance(error, errors.LatchgateError) and error.violations:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=violation.field, description=violation.description)
            for violation in error.violations
        ]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    if isinstance(error, errors.CannotDecide):
        details.append(error_details_pb2.RetryInfo(retry_delay=duration_to(error.retry_after)))
    packed = []
    for detail in details:
        any_message = AnyMessage()
        any_message.Pack(detail, deterministic=True)
        packed.append(any_message)
    return packed
