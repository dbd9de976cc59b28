"""Envoy's external authorization: `Authorization/Check`, on the same decision as VerifyService.

A call always ends in an answer: an RPC error would let the request in where Envoy is configured to fail open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc
import structlog
from google.protobuf.message import DecodeError

from latchgate.envoy.v1 import ext_authz_pb2
from latchgate_server import log_events, observability, tracing
from latchgate_server.core import bounds
from latchgate_server.core.credential_sources import CredentialSources, Found
from latchgate_server.core.errors import CallerKeyRejected, CannotDecide, PermissionMissing
from latchgate_server.core.http_denials import HttpDenials
from latchgate_server.core.model import DenialReason, Question
from latchgate_server.core.ports import Clock, KeyVerifier
from latchgate_server.core.verification import Verification
from latchgate_server.spans import TraceAttribute
from latchgate_server.transport.caller_key import Metadata
from latchgate_server.transport.callers import Callers
from latchgate_server.transport.check_request import (
    Headers,
    RouteMisconfigured,
    client_address,
    question_from,
)
from latchgate_server.transport.check_response import CheckResponses
from latchgate_server.transport.errors import Context
from latchgate_server.transport.request_ids import REQUEST_ID, RequestIds
from latchgate_server.transport.rpc import report, timed
from latchgate_server.transport.traced import followed, noting

SERVICE = "envoy.service.auth.v3.Authorization"
"""The name under which Envoy knows the service."""

_METHOD = "Check"
PATH = f"/{SERVICE}/{_METHOD}"
_PATIENCE_SECONDS = 10.0
# What is kept of the time that Envoy allows, for the answer's way back.
_MARGIN_SECONDS = 0.02
_MARGIN_SHARE = 0.1
_RETRY_SECONDS = 1.0
_LOG_SECONDS = 60.0

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class EnvoyOptions:
    """How Envoy's requests are read and answered.

    client_ip_header: the header whose word on the client's address is taken, in lower case; empty: Envoy's peer.
    """

    sources: CredentialSources
    denials: HttpDenials
    client_ip_header: str


class _Asked(NamedTuple):
    """What a request is about. question: None where the route is misconfigured."""

    question: Question | None
    found: Found
    headers: Headers
    is_grpc: bool


class AuthorizationServicer:
    """Translates, and nothing else."""

    def __init__(
        self,
        verifier: KeyVerifier,
        options: EnvoyOptions,
        clock: Clock,
        request_ids: RequestIds,
        callers: Callers | None = None,
    ) -> None:
        """callers: which Envoys may ask; None: whoever reaches the port."""
        self._verifier = verifier
        self._callers = callers
        self._noting = noting(verifier)
        self._sources = options.sources
        self._client_ip_header = options.client_ip_header
        self._clock = clock
        self._request_ids = request_ids
        self._silent_until = -_LOG_SECONDS
        self.tell_denials(options.denials)

    def tell_denials(self, denials: HttpDenials) -> None:
        """Tell clients this of each denial from now on."""
        self._responses = CheckResponses(denials, self._sources.challenge)
        self._refusal = self._responses.unavailable(_RETRY_SECONDS, is_grpc=False)

    def refusals(self) -> dict[str, Callable[[], bytes]]:
        """The answer to a call that is not looked at, as there are too many: by the method's path."""
        return {PATH: lambda: self._refusal}

    def check_at_once(self, payload: bytes, metadata: Metadata = (), peer: str = "") -> bytes | None:
        """Check of a serialised request, where memory alone can tell; else, and where something fails, None."""
        try:
            if self._callers is None:
                return self._recall(payload)
            return self._callers.answer_at_once(payload, metadata, peer, self._recall)
        except Exception:  # noqa: BLE001 - Check meets the same, and knows what to tell
            return None

    def _recall(self, payload: bytes) -> bytes | None:
        """The same for an Envoy that may ask."""
        return self._answer_from_memory(self._verifier, self._asked(_read(payload)))

    async def Check(self, request: ext_authz_pb2.CheckRequest, context: Context) -> bytes:  # noqa: N802 - Envoy's name
        """Decide one request."""
        is_grpc = False
        try:
            if self._callers is not None:
                await self._callers.admit(context)
            asked = self._asked(request)
            is_grpc = asked.is_grpc
            answer = self._answer_from_memory(self._noting, asked)
            return self._answer(await self._verify(asked, context), asked) if answer is None else answer
        except (CallerKeyRejected, PermissionMissing):
            # Nothing is said about the request's own key, and no Envoy fails open on this.
            is_grpc = Headers(request.attributes.request.http).is_grpc()
            return self._responses.misconfigured(is_grpc=is_grpc)
        except TimeoutError as error:
            tracing.note_failure(error)
            observability.UNDECIDED.labels(grpc.StatusCode.DEADLINE_EXCEEDED.name).inc()
            return self._responses.unavailable(_RETRY_SECONDS, is_grpc=is_grpc)
        except Exception as error:  # noqa: BLE001 - whatever it is, the answer is that nothing could be decided
            self._report(request, error)
            observability.UNDECIDED.labels(grpc.StatusCode.UNAVAILABLE.name).inc()
            retry_after = error.retry_after if isinstance(error, CannotDecide) else _RETRY_SECONDS
            return self._responses.unavailable(retry_after, is_grpc=is_grpc)

    def _asked(self, request: ext_authz_pb2.CheckRequest) -> _Asked:
        attributes = request.attributes
        headers = Headers(attributes.request.http)
        found = self._sources.find(headers.values, attributes.request.http.path)
        # One character beyond the bound is enough to be no address.
        client_ip = client_address(attributes, headers, self._client_ip_header)[: bounds.CLIENT_ADDRESS_LENGTH + 1]
        try:
            question = question_from(attributes, headers, client_ip)
        except RouteMisconfigured as error:
            self._report_misconfigured(error)
            question = None
        return _Asked(question, found, headers, headers.is_grpc())

    def _answer_from_memory(self, verifier: KeyVerifier, asked: _Asked) -> bytes | None:
        """The answer, or None where something else has to be asked."""
        if asked.question is None:
            return self._responses.misconfigured(is_grpc=asked.is_grpc)
        if asked.found.is_ambiguous:
            observability.count_decision(DenialReason.INVALID_API_KEY)
            return self._responses.ambiguous(is_grpc=asked.is_grpc)
        verification = verifier.verify_from_memory(asked.found.credential, asked.question)
        return None if verification is None else self._answer(verification, asked)

    async def _verify(self, asked: _Asked, context: Context) -> Verification:
        """Raises TimeoutError where the answer would come too late for Envoy."""
        assert asked.question is not None, "else memory would have told"
        remaining: float | None = context.time_remaining()  # None where there is no deadline, whatever the stubs say
        patience = min(_PATIENCE_SECONDS if remaining is None else remaining, _PATIENCE_SECONDS)
        async with asyncio.timeout(patience - max(_MARGIN_SECONDS, patience * _MARGIN_SHARE)):
            return await self._noting.verify(asked.found.credential, asked.question)

    def _answer(self, verification: Verification, asked: _Asked) -> bytes:
        if verification.denial_reason is None:
            try:
                answer = self._responses.allowed(verification, asked.found, asked.headers.identity_headers())
            except RouteMisconfigured as error:
                self._report_misconfigured(error)
                return self._responses.misconfigured(is_grpc=asked.is_grpc)
        else:
            answer = self._responses.denied(verification, is_grpc=asked.is_grpc)
        observability.count_decision(verification.denial_reason)
        return answer

    def _report(self, request: ext_authz_pb2.CheckRequest, error: Exception) -> None:
        """Log what an operator should know of, under the request id that Envoy gave the client's request."""
        request_id = self._request_ids.from_sent(Headers(request.attributes.request.http).values(REQUEST_ID))
        tracing.note({TraceAttribute.REQUEST_ID: request_id})
        tracing.note_failure(error)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            report(_METHOD, error)

    def _report_misconfigured(self, error: RouteMisconfigured) -> None:
        """Log it, but not for each request of a busy route."""
        observability.MISCONFIGURED_CHECKS.inc()
        now = self._clock.monotonic()
        if now >= self._silent_until:
            self._silent_until = now + _LOG_SECONDS
            _log.error(log_events.ROUTE_MISCONFIGURED, error=str(error))

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """How the server shall call the service. Responses are serialised already."""
        check = timed(_METHOD, followed(SERVICE, _METHOD, self.Check), self._clock)
        return {_METHOD: grpc.unary_unary_rpc_method_handler(check, request_deserializer=_read)}


def _read(serialised: bytes) -> ext_authz_pb2.CheckRequest:
    """A request; where it is none, an empty one, which is denied."""
    try:
        return ext_authz_pb2.CheckRequest.FromString(serialised)
    except DecodeError:
        return ext_authz_pb2.CheckRequest()
