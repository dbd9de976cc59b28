"""Middleware for ASGI applications (Starlette, FastAPI, Litestar, Quart, …): no request passes without a valid key.

    from latchgate.asgi import PUBLIC, ApiKeyMiddleware, Route

    app.add_middleware(ApiKeyMiddleware, client="127.0.0.1:50051", routes=[
        Route("/healthz", PUBLIC),
        Route("/orders/*", "orders.read", methods={"GET"}),
    ])

The identity is in `request.state.identity` (`scope["state"]["identity"]`), the whole decision in
`scope["extensions"]["latchgate"]["verification"]`. A WebSocket is checked when it begins.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

from latchgate.guard.checks import Asked, asked_over_http
from latchgate.guard.doors import AsyncDoor, GivenAsyncClient
from latchgate.guard.limit_headers import limit_headers
from latchgate.guard.refusals import NOT_FOUND, Refusal
from latchgate.guard.requirements import ANY_KEY, PUBLIC, Needs, Requirement
from latchgate.guard.routes import Route, Routes
from latchgate.results import Verification

__all__ = ["ANY_KEY", "PUBLIC", "ApiKeyMiddleware", "Needs", "Requirement", "Route"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# RFC 6455, section 7.4.1: a message that violates the server's policy. Servers answer the handshake with 403.
_POLICY_VIOLATION = 1008


class ApiKeyMiddleware:
    """An ASGI application that lets through to another what Latchgate allows."""

    def __init__(
        self,
        app: App,
        client: GivenAsyncClient,
        *,
        routes: Sequence[Route] | None = None,
        client_ip_header: str | None = None,
    ) -> None:
        """app: the application.

        client: the address of VerifyService, or what makes a client in the event loop that serves. routes: what needs
        which permission; a path that none of them names is answered 404. None: every path needs a valid key.
        client_ip_header: the header whose word on a client's address is taken, which a proxy of yours overwrites; None:
        the peer that the server reports.
        """
        self._app = app
        self._connections = Connections(client, client_ip_header)
        self._routes = Routes(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._connections.live(self._app, scope, receive, send)
            return
        matched = self._routes.match(scope.get("method", "GET"), _route_path(scope))
        if matched is None:
            await refuse(NOT_FOUND, scope, receive, send)
        elif matched.requirement is None:
            await self._app(admitted(scope, None), receive, send)
        else:
            asked = self._connections.asked(scope)
            outcome = await self._connections.decide(asked, matched.requirement, matched.parts)
            if isinstance(outcome, Refusal):
                await refuse(outcome, scope, receive, send)
            else:
                scope = without_headers(admitted(scope, outcome), asked.found.headers)
                await self._app(scope, receive, telling_limits(send, outcome))


class Connections:
    """Asking about connections: what the middleware and FastAPI's dependency have in common."""

    def __init__(self, client: GivenAsyncClient, client_ip_header: str | None) -> None:
        self._door = AsyncDoor(client)
        self._client_ip_header = client_ip_header

    def asked(self, scope: Mapping[str, Any]) -> Asked:
        """The request, as the server tells of it."""
        headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
        peer = scope.get("client")

        def values(name: str) -> Sequence[str]:
            wanted = name.encode("latin-1")
            return [value.decode("latin-1") for header, value in headers if header.lower() == wanted]

        return asked_over_http(
            values,
            peer=peer[0] if peer else "",
            client_ip_header=self._client_ip_header,
            method=scope.get("method", "GET"),
            path=scope["path"],
        )

    async def decide(self, asked: Asked, requirement: Requirement, parts: Mapping[str, str]) -> Verification | Refusal:
        """The decision where it allows, else what the client is told. parts: of the path, by their names."""
        return await self._door.decide(asked, requirement, parts)

    async def live(self, app: App, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application live, and close the connection to Latchgate after it."""
        try:
            await app(scope, receive, send)
        finally:
            await self._door.close()


def admitted(scope: Scope, verification: Verification | None) -> Scope:
    """The scope for the application, which tells who calls. None: nobody was asked."""
    identity = None if verification is None else verification.identity
    state = {**scope.get("state", {}), "identity": identity}
    extensions = {**(scope.get("extensions") or {}), "latchgate": {"verification": verification}}
    return {**scope, "state": state, "extensions": extensions}


def without_headers(scope: Scope, names: Sequence[str]) -> Scope:
    """The scope without these headers: what the application does not have, it cannot log."""
    hidden = {name.encode("latin-1") for name in names}
    return {**scope, "headers": [header for header in scope["headers"] if header[0].lower() not in hidden]}


def telling_limits(send: Send, verification: Verification) -> Send:
    """Sends what the application sends, with where the key's limits stand."""
    told = [(name.encode(), value.encode()) for name, value in limit_headers(verification.limits).items()]
    if not told:
        return send
    own = {name for name, _ in told}

    async def telling(message: Message) -> None:
        if message["type"] in {"http.response.start", "websocket.accept"}:
            headers = [header for header in message.get("headers", ()) if bytes(header[0]).lower() not in own]
            message = {**message, "headers": [*headers, *told]}
        await send(message)

    return telling


async def refuse(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request, or a WebSocket's handshake, with a refusal."""
    kind = "http"
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": refusal.code})
            return
        kind = "websocket.http"
    headers = [(name.encode(), value.encode()) for name, value in refusal.http_headers]
    await send({"type": f"{kind}.response.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{kind}.response.body", "body": refusal.body})


def _route_path(scope: Scope) -> str:
    """The path below where the application is mounted, as Starlette's router sees it."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    below = path.removeprefix(root)
    return below if below[:1] in {"", "/"} else path
