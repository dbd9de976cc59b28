"""What each denial is over HTTP: status, code and message, as an operator may have changed them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus

from latchgate_server.core import bounds
from latchgate_server.core.denials import MESSAGES
from latchgate_server.core.model import DenialReason

UNAVAILABLE = "UNAVAILABLE"
"""Names the row for: nothing could be decided."""

MISCONFIGURED = "MISCONFIGURED"
"""Names the row for: the route's configuration, not the client, is at fault."""

_STATUSES: Mapping[DenialReason, int] = {
    DenialReason.MISSING_API_KEY: 400,
    DenialReason.INVALID_API_KEY: 401,
    DenialReason.SECRET_REQUIRED: 401,
    DenialReason.INVALID_SECRET: 401,
    DenialReason.TENANT_DISABLED: 401,
    DenialReason.API_KEY_REVOKED: 401,
    DenialReason.API_KEY_DISABLED: 401,
    DenialReason.API_KEY_EXPIRED: 401,
    DenialReason.IP_NOT_AUTHORIZED: 403,
    DenialReason.TENANT_MISMATCH: 404,
    DenialReason.RESOURCE_NOT_IN_SCOPE: 404,
    DenialReason.CAPABILITY_NOT_IN_PLAN: 403,
    DenialReason.INSUFFICIENT_PERMISSIONS: 403,
    DenialReason.ACT_AS_NOT_ALLOWED: 403,
    DenialReason.RATE_LIMITED: 429,
    DenialReason.QUOTA_EXCEEDED: 429,
}
_CODES: Mapping[DenialReason, str] = {
    DenialReason.TENANT_DISABLED: "COMPANY_API_DISABLED",
    DenialReason.API_KEY_REVOKED: "API_KEY_DISABLED",
    DenialReason.TENANT_MISMATCH: "NOT_FOUND",
    DenialReason.RESOURCE_NOT_IN_SCOPE: "NOT_FOUND",
}
_UNAUTHORIZED = 401
_AMBIGUOUS_STATUS = 400
_AMBIGUOUS_MESSAGE = "The request has several API keys that differ."
_FIELDS = {"code_field": "Code", "message_field": "Message"}
_LENGTHS = {"code": bounds.DENIAL_CODE_LENGTH, "message": bounds.DENIAL_MESSAGE_LENGTH}
# What Envoy can send, of what denies (envoy.type.v3.StatusCode).
_POSSIBLE = frozenset({*range(400, 418), 421, 422, 423, 424, 426, 428, 429, 431, *range(500, 509), 510, 511})


class MalformedDenials(ValueError):
    """The table is not as described; the message says where, for people."""


@dataclass(frozen=True, slots=True)
class HttpDenial:
    """What a client is told of one denial."""

    status: int
    code: str
    message: str


class HttpDenials:
    """What a client is told of every denial."""

    def __init__(self, table: Mapping[str, object], *, uniform: bool = False) -> None:
        """The defaults with what an operator changed.

        table: by the name of a DenialReason, UNAVAILABLE or MISCONFIGURED: a table of `status`, `code` and `message`;
        besides, `code_field` and `message_field`. uniform: every 401 is told as INVALID_API_KEY.
        Raises MalformedDenials.
        """
        rows = _defaults()
        names = dict(_FIELDS)
        for name, value in table.items():
            if name in names:
                names[name] = _text(name, value, bounds.DENIAL_CODE_LENGTH)
            elif name in rows:
                rows[name] = _changed(name, rows[name], value)
            else:
                raise MalformedDenials(f"{name[: bounds.QUOTED_LENGTH]} is no reason of a denial")
        if names["code_field"] == names["message_field"]:
            raise MalformedDenials("code_field and message_field are the same")
        self._fields = names["code_field"], names["message_field"]
        invalid = rows[DenialReason.INVALID_API_KEY.name]
        if uniform:
            rows = {name: invalid if row.status == _UNAUTHORIZED else row for name, row in rows.items()}
        self._rows = {reason: rows[reason.name] for reason in MESSAGES}
        self.unavailable = rows[UNAVAILABLE]
        self.misconfigured = rows[MISCONFIGURED]
        self.ambiguous = replace(invalid, status=_AMBIGUOUS_STATUS, message=_AMBIGUOUS_MESSAGE)
        """Several credentials that differ, in one place."""

    def of(self, reason: DenialReason) -> HttpDenial:
        """What a client is told of a denial."""
        return self._rows[reason]

    def body(self, denial: HttpDenial) -> str:
        """The JSON of an answer."""
        code_field, message_field = self._fields
        return json.dumps({code_field: denial.code, message_field: denial.message}, ensure_ascii=False)


def _defaults() -> dict[str, HttpDenial]:
    rows = {
        reason.name: HttpDenial(_STATUSES[reason], _CODES.get(reason, reason.name), message)
        for reason, message in MESSAGES.items()
    }
    rows[UNAVAILABLE] = HttpDenial(
        HTTPStatus.SERVICE_UNAVAILABLE, UNAVAILABLE, "The API key could not be checked; try again later."
    )
    rows[MISCONFIGURED] = HttpDenial(
        HTTPStatus.INTERNAL_SERVER_ERROR, MISCONFIGURED, "This route is not configured correctly."
    )
    return rows


def _changed(name: str, row: HttpDenial, value: object) -> HttpDenial:
    if not isinstance(value, Mapping):
        raise MalformedDenials(f"{name} is expected to be a table")
    status, texts = row.status, {"code": row.code, "message": row.message}
    for field, given in value.items():
        if field == "status":
            status = _status(name, given)
        elif field in texts:
            texts[field] = _text(f"{name}.{field}", given, _LENGTHS[field])
        else:
            raise MalformedDenials(f"{name} has a status, a code and a message, and no {field[: bounds.QUOTED_LENGTH]}")
    return HttpDenial(status, **texts)


def _status(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value not in _POSSIBLE:
        raise MalformedDenials(f"{name}.status is expected to be an HTTP status of 4xx or 5xx that Envoy knows")
    return value


def _text(name: str, value: object, length: int) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= length or not value.isprintable():
        raise MalformedDenials(f"{name} is expected to be 1 to {length} printable characters")
    return value
