"""Spans around calls of either server, and what they tell of a decision.

A call of the data plane has one where its caller's trace has: on its own it is over in microseconds, and a span would
cost more than the decision. So the native transport answers at once, as ever, what belongs to no such trace.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc

from latchgate_server import tracing
from latchgate_server.core.model import Question
from latchgate_server.core.ports import KeyVerifier
from latchgate_server.core.record import Record
from latchgate_server.core.verification import Verification
from latchgate_server.spans import TraceAttribute
from latchgate_server.transport.errors import Context

Request = TypeVar("Request")
Response = TypeVar("Response")


def followed(
    service: str, method: str, handler: Callable[[Request, Context], Awaitable[Response]]
) -> Callable[[Request, Context], Awaitable[Response]]:
    """The handler, with a span around each call that belongs to its caller's trace; as it is where traces are off."""
    if not tracing.is_on():
        return handler

    @functools.wraps(handler)
    async def call(request: Request, context: Context) -> Response:
        metadata = tuple(context.invocation_metadata() or ())
        if not tracing.is_followed(metadata):
            return await handler(request, context)
        with tracing.server_span(service, method, metadata):
            response = await handler(request, context)
            tracing.note({TraceAttribute.RPC_CODE: grpc.StatusCode.OK.value[0]})
            return response

    return call


def noting(verifier: KeyVerifier) -> KeyVerifier:
    """The verifier, which tells the call's span what it decides; as it is where traces are off."""
    return _Noting(verifier) if tracing.is_on() else verifier


class _Noting:
    """Implements ports.KeyVerifier."""

    def __init__(self, verifier: KeyVerifier) -> None:
        self._verifier = verifier

    async def verify(self, key_string: str, question: Question, at_least_revision: int = 0) -> Verification:
        verification = await self._verifier.verify(key_string, question, at_least_revision)
        _note(verification)
        return verification

    def verify_from_memory(
        self, key_string: str, question: Question, at_least_revision: int = 0
    ) -> Verification | None:
        verification = self._verifier.verify_from_memory(key_string, question, at_least_revision)
        if verification is not None:
            _note(verification)
        return verification

    async def identify(self, key_string: str, client_ip: str) -> Record | None:
        return await self._verifier.identify(key_string, client_ip)


def _note(verification: Verification) -> None:
    """Of a key whose secret was not proven, nothing but why not."""
    reason, record = verification.denial_reason, verification.record
    tracing.note(
        {
            TraceAttribute.DECISION: verification.decision.name,
            TraceAttribute.DENIAL_REASON: reason.name if reason else "",
            TraceAttribute.KEY_ID: record.identity.key_id if record else "",
            TraceAttribute.TENANT_ID: record.identity.tenant_id if record else "",
            TraceAttribute.REVISION: verification.revision,
            TraceAttribute.STALE: verification.stale,
        }
    )
