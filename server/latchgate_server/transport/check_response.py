"""What Envoy is told: a decision as a serialised CheckResponse.

An answer has its status always: Envoy takes a missing one for OK, also beside a denial. Header values are ours alone:
CR or LF in one would begin a new header, so none has a byte of the request.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct

from latchgate.envoy.v1 import ext_authz_pb2
from latchgate_server.core.credential_sources import Found
from latchgate_server.core.http_denials import HttpDenial, HttpDenials
from latchgate_server.core.model import DenialReason
from latchgate_server.core.record import Record
from latchgate_server.core.verification import Verification
from latchgate_server.transport.convert_verify import identity_to
from latchgate_server.transport.identity_headers import NAMES, identity_headers
from latchgate_server.transport.limit_headers import limit_headers

_Response = ext_authz_pb2.CheckResponse
_Option = ext_authz_pb2.HeaderValueOption

_CODE = grpc.StatusCode
# What a gRPC client is told where Envoy's own translation of the HTTP status would mislead it.
_GRPC_CODES: Mapping[int, grpc.StatusCode] = {
    400: _CODE.UNAUTHENTICATED,
    401: _CODE.UNAUTHENTICATED,
    403: _CODE.PERMISSION_DENIED,
    404: _CODE.NOT_FOUND,
    429: _CODE.RESOURCE_EXHAUSTED,
    503: _CODE.UNAVAILABLE,
}
_UNAUTHORIZED = 401


class CheckResponses:
    """Writes answers. Each is serialised."""

    def __init__(self, denials: HttpDenials, challenge: str) -> None:
        """challenge: what WWW-Authenticate says; empty: nothing."""
        self._denials = denials
        self._challenge = challenge

    def allowed(self, verification: Verification, found: Found, foreign: Iterable[str]) -> bytes:
        """The request may pass.

        found: where its credential was. foreign: names of the client's own headers that the upstream could take for
        ours. Raises RouteMisconfigured where the identity does not fit into headers.
        """
        record = verification.record
        assert record is not None, "an allowed key has a record"
        identity = record.told_envoy or _tell(record)
        ok = ext_authz_pb2.OkHttpResponse(
            headers_to_remove=(*found.headers, *(name for name in foreign if name not in NAMES)),
            query_parameters_to_remove=found.parameters,
            response_headers_to_add=_options(limit_headers(verification.charge.statuses)),
        )
        # Fields of a message that is there twice are merged (Protocol Buffers, "Encoding": "Last One Wins").
        return identity + _Response(ok_response=ok).SerializeToString()

    def denied(self, verification: Verification, *, is_grpc: bool) -> bytes:
        """A check failed."""
        reason = verification.denial_reason
        assert reason is not None, "a denial has a reason"
        charge = verification.charge
        response = self._refusal(self._denials.of(reason), is_grpc=is_grpc, retry_after=charge.retry_after)
        response.denied_response.headers.extend(_options(limit_headers(charge.statuses)))
        _tell_filters(response.dynamic_metadata, verification.record, reason)
        return response.SerializeToString()

    def ambiguous(self, *, is_grpc: bool) -> bytes:
        """The request has several credentials in one place."""
        response = self._refusal(self._denials.ambiguous, is_grpc=is_grpc)
        _tell_filters(response.dynamic_metadata, None, DenialReason.INVALID_API_KEY)
        return response.SerializeToString()

    def misconfigured(self, *, is_grpc: bool) -> bytes:
        """The route is not configured correctly."""
        return self._refusal(self._denials.misconfigured, is_grpc=is_grpc).SerializeToString()

    def unavailable(self, retry_after: float, *, is_grpc: bool) -> bytes:
        """Nothing could be decided: Envoy fails open or closed as it is configured. retry_after: seconds."""
        denied = self._denied(self._denials.unavailable, is_grpc=is_grpc, retry_after=retry_after)
        status = ext_authz_pb2.RpcStatus(code=_CODE.UNAVAILABLE.value[0])
        return _Response(status=status, error_response=denied).SerializeToString()

    def _refusal(
        self, denial: HttpDenial, *, is_grpc: bool, retry_after: float | None = None
    ) -> ext_authz_pb2.CheckResponse:
        code = _GRPC_CODES.get(denial.status, _CODE.PERMISSION_DENIED)
        return _Response(
            status=ext_authz_pb2.RpcStatus(code=code.value[0]),
            denied_response=self._denied(denial, is_grpc=is_grpc, retry_after=retry_after),
        )

    def _denied(
        self, denial: HttpDenial, *, is_grpc: bool, retry_after: float | None = None
    ) -> ext_authz_pb2.DeniedHttpResponse:
        headers = {}
        if is_grpc:
            code = _GRPC_CODES.get(denial.status)
            if code is not None:
                headers["grpc-status"] = str(code.value[0])
            body = f"{denial.code}: {denial.message}"
        else:
            headers["content-type"] = "application/json"
            body = self._denials.body(denial)
        if denial.status == _UNAUTHORIZED and self._challenge:
            headers["www-authenticate"] = self._challenge
        if retry_after is not None:
            headers["retry-after"] = str(max(1, math.ceil(retry_after)))
        return ext_authz_pb2.DeniedHttpResponse(
            status=ext_authz_pb2.HttpStatus(code=denial.status), headers=_options(headers), body=body
        )


def _tell(record: Record) -> bytes:
    """What every allowed request has, kept with the record, so that it goes with it."""
    values = identity_headers(record.identity)
    response = _Response(
        status=ext_authz_pb2.RpcStatus(code=_CODE.OK.value[0]),
        ok_response=ext_authz_pb2.OkHttpResponse(
            headers=_options({name: value for name, value in values.items() if value}),
            headers_to_remove=[name for name, value in values.items() if not value],
        ),
    )
    _tell_filters(response.dynamic_metadata, record, None)
    told = response.SerializeToString()
    record.keep_told_envoy(told)
    return told


def _options(headers: Mapping[str, str]) -> list[ext_authz_pb2.HeaderValueOption]:
    return [
        _Option(
            header=ext_authz_pb2.HeaderValue(key=name, value=value),
            append_action=_Option.OVERWRITE_IF_EXISTS_OR_ADD,
        )
        for name, value in headers.items()
    ]


def _tell_filters(metadata: Struct, record: Record | None, reason: DenialReason | None) -> None:
    """Put into Envoy's dynamic metadata who calls, as far as it is proven, and why not."""
    told: dict[str, Any] = {}
    if record is not None:
        told = MessageToDict(identity_to(record.identity), preserving_proto_field_name=True)
    if reason is not None:
        told["denial_reason"] = reason.name
    metadata.update(told)
