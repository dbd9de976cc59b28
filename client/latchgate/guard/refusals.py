"""What a client is told that is not let in: over HTTP, and as a status of gRPC.

The same as a client behind Envoy is told (docs/envoy.md, "Denials"), where its operator changed nothing; the messages
come from the server.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import grpc

from latchgate.guard.credentials import CHALLENGE
from latchgate.guard.limit_headers import limit_headers
from latchgate.results import Verification

STATUSES: Mapping[str, int] = {
    "MISSING_API_KEY": 400,
    "INVALID_API_KEY": 401,
    "SECRET_REQUIRED": 401,
    "INVALID_SECRET": 401,
    "TENANT_DISABLED": 401,
    "API_KEY_REVOKED": 401,
    "API_KEY_DISABLED": 401,
    "API_KEY_EXPIRED": 401,
    "IP_NOT_AUTHORIZED": 403,
    "TENANT_MISMATCH": 404,
    "RESOURCE_NOT_IN_SCOPE": 404,
    "CAPABILITY_NOT_IN_PLAN": 403,
    "INSUFFICIENT_PERMISSIONS": 403,
    "ACT_AS_NOT_ALLOWED": 403,
    "RATE_LIMITED": 429,
    "QUOTA_EXCEEDED": 429,
}
"""The HTTP status for each reason."""

CODES: Mapping[str, str] = {
    "TENANT_DISABLED": "COMPANY_API_DISABLED",
    "API_KEY_REVOKED": "API_KEY_DISABLED",
    "TENANT_MISMATCH": "NOT_FOUND",
    "RESOURCE_NOT_IN_SCOPE": "NOT_FOUND",
}
"""The code for each reason that is not called the same."""

_FORBIDDEN = 403
_CODE = grpc.StatusCode
_GRPC_CODES: Mapping[int, grpc.StatusCode] = {
    400: _CODE.UNAUTHENTICATED,
    401: _CODE.UNAUTHENTICATED,
    404: _CODE.NOT_FOUND,
    429: _CODE.RESOURCE_EXHAUSTED,
    503: _CODE.UNAVAILABLE,
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a client is told. headers: without those that every answer has; names in lower case."""

    status: int
    code: str
    message: str
    headers: Mapping[str, str]

    @property
    def content(self) -> Mapping[str, str]:
        """What the body says."""
        return {"Code": self.code, "Message": self.message}

    @property
    def body(self) -> bytes:
        """The body, as JSON."""
        return json.dumps(self.content, ensure_ascii=False).encode()

    @property
    def http_headers(self) -> list[tuple[str, str]]:
        """All headers of an answer over HTTP."""
        own = [("content-type", "application/json"), ("content-length", str(len(self.body)))]
        return [*own, *self.headers.items()]

    @property
    def grpc_code(self) -> grpc.StatusCode:
        """The status of gRPC."""
        return _GRPC_CODES.get(self.status, _CODE.PERMISSION_DENIED)

    @property
    def grpc_details(self) -> str:
        """What comes with it."""
        return f"{self.code}: {self.message}"


def denied(verification: Verification) -> Refusal:
    """A check failed. A reason that this package does not know yet is a denial like any other."""
    reason = verification.reason
    status = STATUSES.get(reason, _FORBIDDEN)
    code = CODES.get(reason, reason) if reason in STATUSES else "FORBIDDEN"
    headers = dict(limit_headers(verification.limits))
    if status == 401:
        headers["www-authenticate"] = CHALLENGE
    if verification.retry_after is not None:
        headers["retry-after"] = _whole_seconds(verification.retry_after)
    return Refusal(status, code, verification.message, headers)


def unavailable(retry_after: float | None = None) -> Refusal:
    """Nothing could be decided. retry_after: seconds; None: nobody said."""
    message = "The API key could not be checked; try again later."
    return Refusal(503, "UNAVAILABLE", message, {"retry-after": _whole_seconds(retry_after or 1.0)})


AMBIGUOUS = Refusal(400, "INVALID_API_KEY", "The request has several API keys that differ.", {})
MISCONFIGURED = Refusal(500, "MISCONFIGURED", "This route is not configured correctly.", {})
NOT_FOUND = Refusal(404, "NOT_FOUND", "There is no such resource.", {})


def _whole_seconds(seconds: float) -> str:
    return str(max(1, math.ceil(seconds)))
