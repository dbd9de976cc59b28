"""Interceptors for gRPC servers: no RPC is handled without a valid key.

    from latchgate.interceptors import PUBLIC, ApiKeyInterceptor

    server = grpc.server(ThreadPoolExecutor(), interceptors=[ApiKeyInterceptor("127.0.0.1:50051", {
        "/grpc.health.v1.Health/*": PUBLIC,
        "/shop.v1.Orders/GetOrder": "orders.read",
    })])

`AsyncApiKeyInterceptor` is the same for `grpc.aio.server`. A handler asks `current_identity()` who calls. A method that
is not named is denied. A stream is checked when it begins.
"""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any
from urllib.parse import unquote

import grpc

from latchgate.guard.checks import Asked, asked_over_http
from latchgate.guard.doors import AsyncDoor, Door, GivenAsyncClient, GivenClient
from latchgate.guard.limit_headers import limit_headers
from latchgate.guard.refusals import MISCONFIGURED, Refusal
from latchgate.guard.requirements import ANY_KEY, PUBLIC, Needs, Requirement, requirement_of
from latchgate.results import Identity, Verification

__all__ = [
    "ANY_KEY",
    "PUBLIC",
    "ApiKeyInterceptor",
    "AsyncApiKeyInterceptor",
    "Needs",
    "Requirement",
    "current_identity",
    "current_verification",
]

_current: contextvars.ContextVar[Verification | None] = contextvars.ContextVar("latchgate", default=None)

Methods = Mapping[str, Needs]
Metadata = Sequence[tuple[str, str]]


def current_verification() -> Verification | None:
    """The decision about the RPC that is being handled; None where nobody was asked."""
    return _current.get()


def current_identity() -> Identity | None:
    """Who calls the RPC that is being handled; None in a method that is public."""
    verification = _current.get()
    return None if verification is None else verification.identity


class ApiKeyInterceptor(grpc.ServerInterceptor):
    """For `grpc.server`."""

    def __init__(self, client: GivenClient, methods: Methods, *, client_ip_header: str | None = None) -> None:
        """client: the address of VerifyService, or what makes a client in the process that serves.

        methods: what `/package.Service/Method`, or `/package.Service/*` for the rest of a service, requires: an
        expression over permissions, a Requirement, ANY_KEY or PUBLIC. What is not named is denied.
        client_ip_header: the metadata whose word on a client's address is taken, which a proxy of yours overwrites;
        None: the peer.
        Raises ValueError for a name or a requirement that is none.
        """
        self._door = Door(client)
        self._methods = _Methods(methods)
        self._client_ip_header = client_ip_header

    def close(self) -> None:
        """Close the connection to Latchgate."""
        self._door.close()

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """As grpc.ServerInterceptor says."""
        handler: Any = continuation(handler_call_details)
        method: str = handler_call_details.method
        if handler is None or self._methods.is_public(method):
            unchanged: grpc.RpcMethodHandler[Any, Any] | None = handler
            return unchanged

        def admit(context: grpc.ServicerContext) -> contextvars.Context:
            """Where the handler is to run. Ends the RPC where it may not."""
            asked = _asked(method, context, self._client_ip_header)
            requirement = self._methods.requirement(method)
            outcome = MISCONFIGURED if requirement is None else self._door.decide(asked, requirement, {})
            if isinstance(outcome, Refusal):
                context.set_trailing_metadata(tuple(outcome.headers.items()))
                context.abort(outcome.grpc_code, outcome.grpc_details)
            context.set_trailing_metadata(tuple(limit_headers(outcome.limits).items()))
            room = contextvars.copy_context()
            room.run(_current.set, outcome)
            return room

        wrapped: grpc.RpcMethodHandler[Any, Any] = _wrapped(handler, _answering, _streaming, admit)
        return wrapped


class AsyncApiKeyInterceptor(grpc.aio.ServerInterceptor):
    """For `grpc.aio.server`, whose handlers are coroutines or asynchronous generators."""

    def __init__(self, client: GivenAsyncClient, methods: Methods, *, client_ip_header: str | None = None) -> None:
        """As ApiKeyInterceptor, with an AsyncClient in the event loop that serves."""
        self._door = AsyncDoor(client)
        self._methods = _Methods(methods)
        self._client_ip_header = client_ip_header

    async def close(self) -> None:
        """Close the connection to Latchgate."""
        await self._door.close()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """As grpc.aio.ServerInterceptor says."""
        handler: Any = await continuation(handler_call_details)
        method: str = handler_call_details.method
        if handler is None or self._methods.is_public(method):
            unchanged: grpc.RpcMethodHandler[Any, Any] | None = handler
            return unchanged

        async def admit(context: grpc.aio.ServicerContext[Any, Any]) -> None:
            """Ends the RPC where it may not be handled."""
            asked = _asked(method, context, self._client_ip_header)
            requirement = self._methods.requirement(method)
            outcome = MISCONFIGURED if requirement is None else await self._door.decide(asked, requirement, {})
            if isinstance(outcome, Refusal):
                await context.abort(outcome.grpc_code, outcome.grpc_details, tuple(outcome.headers.items()))
            context.set_trailing_metadata(tuple(limit_headers(outcome.limits).items()))
            # Each RPC has a task, and so a context, of its own.
            _current.set(outcome)

        wrapped: grpc.RpcMethodHandler[Any, Any] = _wrapped(handler, _answering_async, _streaming_async, admit)
        return wrapped


class _Methods:
    """What each method requires."""

    def __init__(self, methods: Methods) -> None:
        self._requirements = {_checked(name): requirement_of(needs) for name, needs in methods.items()}
        for name, requirement in self._requirements.items():
            if requirement is not None and requirement.places:
                raise ValueError(f"{name}: a method's name has no parts to fill in")

    def is_public(self, method: str) -> bool:
        name = self._name(method)
        return name is not None and self._requirements[name] is None

    def requirement(self, method: str) -> Requirement | None:
        """None: it is not named, or public."""
        name = self._name(method)
        return None if name is None else self._requirements[name]

    def _name(self, method: str) -> str | None:
        service, _, _ = method.rpartition("/")
        return next((name for name in (method, f"{service}/*") if name in self._requirements), None)


def _checked(name: str) -> str:
    parts = name.split("/")
    if len(parts) != 3 or parts[0] or not parts[1] or not parts[2] or "*" in parts[1] or parts[2][1:].count("*"):
        raise ValueError(f"{name!r} is expected to be /package.Service/Method or /package.Service/*")
    return name


def _asked(method: str, context: Any, client_ip_header: str | None) -> Asked:
    metadata: Sequence[tuple[str, str | bytes]] = context.invocation_metadata() or ()

    def values(name: str) -> Sequence[str]:
        return [value for key, value in metadata if key == name and isinstance(value, str)]

    peer = _address(context.peer())
    return asked_over_http(values, peer=peer, client_ip_header=client_ip_header, method="POST", path=method)


def _address(peer: str) -> str:
    """The address in what gRPC calls a peer, such as `ipv4:192.0.2.1:4711` or `ipv6:%5B2001:db8::1%5D:4711`."""
    family, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") if family in {"ipv4", "ipv6"} else ""


def _wrapped(handler: Any, answering: Any, streaming: Any, admit: Any) -> Any:
    """The handler with `admit` before its behaviour, in all four arities."""
    behaviours = {
        (False, False): (grpc.unary_unary_rpc_method_handler, "unary_unary", answering),
        (False, True): (grpc.unary_stream_rpc_method_handler, "unary_stream", streaming),
        (True, False): (grpc.stream_unary_rpc_method_handler, "stream_unary", answering),
        (True, True): (grpc.stream_stream_rpc_method_handler, "stream_stream", streaming),
    }
    make, name, wrap = behaviours[handler.request_streaming, handler.response_streaming]
    return make(wrap(getattr(handler, name), admit), handler.request_deserializer, handler.response_serializer)


def _answering(behaviour: Any, admit: Callable[[grpc.ServicerContext], contextvars.Context]) -> Any:
    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        return admit(context).run(behaviour, request, context)

    return answer


def _streaming(behaviour: Any, admit: Callable[[grpc.ServicerContext], contextvars.Context]) -> Any:
    def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        # A generator has no context of its own: each of its steps is taken in the one of its RPC.
        room = admit(context)
        responses = iter(room.run(behaviour, request, context))
        try:
            while (response := room.run(next, responses, _END)) is not _END:
                yield response
        finally:
            if inspect.isgenerator(responses):
                room.run(responses.close)

    return stream


_END = object()


def _answering_async(behaviour: Any, admit: Callable[[Any], Awaitable[None]]) -> Any:
    if not inspect.iscoroutinefunction(behaviour):
        # It would run in a thread, where nothing told it who calls.
        raise TypeError(f"{behaviour!r} is expected to be a coroutine or an asynchronous generator")

    async def answer(request: Any, context: Any) -> Any:
        await admit(context)
        return await behaviour(request, context)

    return answer


def _streaming_async(behaviour: Any, admit: Callable[[Any], Awaitable[None]]) -> Any:
    if not inspect.isasyncgenfunction(behaviour):
        # It writes its responses to the context.
        return _answering_async(behaviour, admit)

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        await admit(context)
        async with aclosing(behaviour(request, context)) as responses:
            async for response in responses:
                yield response

    return stream
