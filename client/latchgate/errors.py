"""What the client raises.

    LatchgateError
    ├── Denied                    a denial, from `raise_for_denial`
    ├── KeyStringLost             a key was made, but its key string went to an earlier try: `key` is the key
    └── CallFailed                a call without an answer, or with a refusal
        ├── InvalidRequest        a field is malformed: `violations` names it
        ├── NotAuthenticated      the caller's own key is missing or does not verify
        ├── PermissionDenied      the caller's own key may not do this
        ├── NotFound              there is no such thing, as far as the caller may know
        ├── AlreadyExists         the id is taken
        ├── Conflict              somebody else changed it meanwhile: read it again
        ├── PreconditionFailed    its state does not allow this now
        ├── Overloaded            too much at once, or a bound is reached: try again after `retry_after`
        └── Unavailable           nobody could tell in time: fail closed, and try again after `retry_after`

None of them holds a key string. What has no class of its own is a plain CallFailed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError

from latchgate.decoding import seconds_of
from latchgate.rpc.v1 import status_pb2

if TYPE_CHECKING:
    from latchgate.admin.key import Key
    from latchgate.results import Verification

DOMAIN = "latchgate.v1"
_STATUS_METADATA = "grpc-status-details-bin"


class LatchgateError(Exception):
    """The root of everything that this package raises."""


class Denied(LatchgateError):
    """The key may not do it. `verification` says why."""

    def __init__(self, verification: Verification) -> None:
        super().__init__(verification.message or "denied")
        self.verification = verification

    @property
    def reason(self) -> str:
        """The denial reason, for example `RATE_LIMITED`."""
        return self.verification.reason


class KeyStringLost(LatchgateError):
    """A key was made, but its key string is told only once, and went to an earlier call with the same `request_id`.

    That may have been the first try of this very call, whose answer was lost on its way. Delete `key` and make another.
    """

    def __init__(self, key: Key) -> None:
        super().__init__(f"{key.key_id} was made, but its key string went to an earlier try and is told only once")
        self.key = key


class CallFailed(LatchgateError):
    """A call that ended in an error.

    code: gRPC's. reason: the name in ErrorReason, for example `ETAG_MISMATCH`; empty where the server gave none.
    metadata: what the reason is about. violations: of each malformed field, what is expected, by its path.
    retry_after: seconds after which trying again makes sense; None where nothing was told.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{code.name}: {message}" if message else code.name)
        self.code = code
        self.message = message
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = dict(violations or {})
        self.retry_after = retry_after

    @property
    def is_from_server(self) -> bool:
        """Whether the server gave this answer, so that nothing was decided and nothing taken from a limit."""
        return bool(self.reason) or self.retry_after is not None


class InvalidRequest(CallFailed):
    """A field is malformed; `violations` names it."""


class NotAuthenticated(CallFailed):
    """The caller's own key is missing or does not verify."""


class PermissionDenied(CallFailed):
    """The caller's own key may not do this."""


class NotFound(CallFailed):
    """There is no such thing, as far as the caller may know."""


class AlreadyExists(CallFailed):
    """The id is taken."""


class Conflict(CallFailed):
    """Somebody else changed it after it was read."""


class PreconditionFailed(CallFailed):
    """Its state does not allow this now."""


class Overloaded(CallFailed):
    """Too much is being asked at once, or a bound is reached."""


class Unavailable(CallFailed):
    """Nobody could tell in time."""


_CLASSES: Mapping[grpc.StatusCode, type[CallFailed]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.UNAUTHENTICATED: NotAuthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.FAILED_PRECONDITION: PreconditionFailed,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: Unavailable,
}
_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}


def call_failed(error: Any) -> CallFailed:
    """The error for a grpc.RpcError that is a call as well."""
    details = [value for name, value in error.trailing_metadata() or () if name == _STATUS_METADATA]
    return _failure(error.code(), error.details() or "", details[:1])


def batch_entry_failed(code: int, message: str) -> CallFailed:
    """The error for an entry of a batch. code: a google.rpc.Code. The server gave it, so nothing was decided."""
    known = _BY_NUMBER.get(code, grpc.StatusCode.UNKNOWN)
    return _CLASSES.get(known, CallFailed)(known, message, retry_after=0.0)


def _failure(code: grpc.StatusCode, message: str, details: Sequence[bytes]) -> CallFailed:
    try:
        told = _told(details)
    except DecodeError:  # whatever stands between server and client may have made it up
        told = {}
    return _CLASSES.get(code, CallFailed)(code, message, **told)


def _told(details: Sequence[bytes]) -> dict[str, Any]:
    """What serialised google.rpc.Status tell beyond code and message. Raises DecodeError."""
    told: dict[str, Any] = {}
    for detail in [detail for status in details for detail in status_pb2.Status.FromString(status).details]:
        match detail.type_url.rpartition("/")[2]:
            case "google.rpc.ErrorInfo":
                info = status_pb2.ErrorInfo.FromString(detail.value)
                if info.domain == DOMAIN:
                    told |= {"reason": info.reason, "metadata": info.metadata}
            case "google.rpc.BadRequest":
                violations = status_pb2.BadRequest.FromString(detail.value).field_violations
                told["violations"] = {violation.field: violation.description for violation in violations}
            case "google.rpc.RetryInfo":
                delay = status_pb2.RetryInfo.FromString(detail.value).retry_delay
                told["retry_after"] = seconds_of(delay)
    return told
