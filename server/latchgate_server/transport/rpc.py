"""What every RPC has around it: admission of administrators, errors said on the wire, a count of how it ended."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

import grpc
import structlog

from latchgate.v1 import admin_service_pb2
from latchgate_server import log_events, observability, tracing
from latchgate_server.admin.access import Access, Caller
from latchgate_server.core import bounds
from latchgate_server.core.errors import (
    AdminKeyRejected,
    CallerKeyRejected,
    CannotDecide,
    InvalidRequest,
    LatchgateError,
    PermissionMissing,
)
from latchgate_server.core.model import DenialReason
from latchgate_server.core.ports import Clock
from latchgate_server.spans import TraceAttribute
from latchgate_server.transport.caller_key import caller_key, peer_address, values_of
from latchgate_server.transport.errors import Context, abort, code_of
from latchgate_server.transport.request_ids import REQUEST_ID, RequestIds

ON_BEHALF_OF = "x-latchgate-on-behalf-of"
_SERVICE = admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name

Servicer = TypeVar("Servicer", bound="AdmitsAdministrators")
Request = TypeVar("Request")
Response = TypeVar("Response")

_log = structlog.get_logger()


class AdmitsAdministrators:
    """A servicer whose calls come from administrators."""

    def __init__(self, access: Access, clock: Clock, request_ids: RequestIds) -> None:
        self._access = access
        self._clock = clock
        self.request_ids = request_ids

    def now(self) -> float:
        """Monotonic seconds."""
        return self._clock.monotonic()

    async def admit(self, method: str, context: Context) -> Caller:
        """Let the caller in. Raises AdminKeyRejected, InvalidRequest, PermissionMissing, CannotDecide."""
        metadata = context.invocation_metadata()
        key_string, owners = caller_key(metadata), values_of(metadata, ON_BEHALF_OF)
        # A portal that does not know whom it acts for must not act for everybody.
        if len(owners) > 1 or not all(0 < len(owner) <= bounds.USER_LENGTH for owner in owners):
            raise InvalidRequest.of(ON_BEHALF_OF, f"one owner, of 1 to {bounds.USER_LENGTH} characters")
        if key_string is None:
            raise AdminKeyRejected(DenialReason.INVALID_API_KEY)
        return await self._access.admit(method, key_string, peer_address(context.peer()), "".join(owners))


def admin_rpc(
    handler: Callable[[Servicer, Request, Caller], Awaitable[Response]],
) -> Callable[[Servicer, Request, Context], Awaitable[Response]]:
    """Make an RPC of AdminService out of a method that takes its request and the admitted caller."""
    method = handler.__name__

    @functools.wraps(handler)
    async def call(self: Servicer, request: Request, context: Context) -> Response:
        began, caller = self.now(), None
        with (
            tracing.server_span(_SERVICE, method, tuple(context.invocation_metadata() or ())),
            self.request_ids.noted(context) as request_id,
        ):
            try:
                caller = await self.admit(method, context)
                tracing.note({TraceAttribute.CALLER: caller.key_id, TraceAttribute.TENANT_ID: caller.tenant_id})
                response = await handler(self, request, caller)
            except Exception as error:  # noqa: BLE001 - whatever it is, no client sees a stack trace
                report(method, error)
                _note_admin_call(method, caller, code_of(error), self.now() - began)
                await abort(context, error, request_id)
            _note_admin_call(method, caller, grpc.StatusCode.OK, self.now() - began)
            tracing.note({TraceAttribute.RPC_CODE: grpc.StatusCode.OK.value[0]})
            context.set_trailing_metadata(((REQUEST_ID, request_id),))
            return response

    return call


def _note_admin_call(method: str, caller: Caller | None, code: grpc.StatusCode, seconds: float) -> None:
    """Count a call and log it. caller: None where nobody was let in; such calls a stranger can make without end."""
    observability.ADMIN_CALLS.labels(method, code.name).inc()
    observability.ADMIN_SECONDS.labels(method).observe(seconds)
    log = _log.debug if caller is None else _log.info
    log(
        log_events.ADMIN_CALL,
        method=method,
        code=code.name,
        key_id="" if caller is None else caller.key_id,
        seconds=round(seconds, 6),
    )


def timed(
    method: str, handler: Callable[[Request, Context], Awaitable[Response]], clock: Clock
) -> Callable[[Request, Context], Awaitable[Response]]:
    """The handler of a call of the data plane, with a note of how long each call takes."""
    latency = observability.LATENCIES[method]

    @functools.wraps(handler)
    async def call(request: Request, context: Context) -> Response:
        began = clock.monotonic()
        try:
            return await handler(request, context)
        finally:
            latency.observe(clock.monotonic() - began)

    return call


async def fail(context: Context, method: str, error: Exception, request_ids: RequestIds) -> NoReturn:
    """End a call of the data plane with an error in place of a decision."""
    with request_ids.noted(context) as request_id:
        report(method, error)
        if not isinstance(error, CallerKeyRejected | PermissionMissing):  # those are counted apart
            observability.UNDECIDED.labels(code_of(error).name).inc()
        await abort(context, error, request_id)


def report(method: str, error: Exception) -> None:
    """Log what an operator should know of. The request is never logged: it may hold a credential."""
    if isinstance(error, CannotDecide):
        _log.warning(log_events.UNDECIDED, method=method, error=str(error))
    elif not isinstance(error, LatchgateError):
        _log.error(log_events.INTERNAL_ERROR, method=method, exc_info=error)
