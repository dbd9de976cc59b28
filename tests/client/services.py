"""The same small service in each framework, protected as its users protect theirs, and asked over HTTP."""

# Annotations are evaluated as they stand: FastAPI reads those of local functions.
import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, NamedTuple

import httpx
import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi import Response as FastAPIResponse
from flask import Flask, request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse
from starlette.routing import Route as StarletteRoute

from latchgate import Identity
from latchgate import asgi as latchgate_asgi
from latchgate.asgi import PUBLIC, Requirement, Route
from latchgate.fastapi import ApiKeys
from latchgate.wsgi import ApiKeyMiddleware
from tests.client.denials import PEER

Headers = Sequence[tuple[str, str]] | Mapping[str, str]

EXPORT = Requirement(permissions="orders.export", capability="export")
SITE = Requirement(permissions="orders.read", resource="sites/{site}")
TENANT = Requirement(tenant="{tenant}")
ROUTES = (
    Route("/public", PUBLIC),
    Route("/orders", "orders.read"),
    Route("/export", EXPORT),
    Route("/sites/{site}", SITE),
    Route("/tenants/{tenant}", TENANT),
)
PATHS = ("/public", "/orders", "/export", "/sites/{site}", "/tenants/{tenant}", "/forgotten")


def told(identity: Identity | None, headers: Mapping[str, str]) -> dict[str, Any]:
    """What a handler answers: who called, and every header that it could have logged."""
    caller = None if identity is None else identity.key_id
    return {"caller": caller, "saw": {name.lower(): value for name, value in headers.items()}}


def starlette_app(client: Any, **options: Any) -> Any:
    """Starlette behind the ASGI middleware."""

    async def handle(received: StarletteRequest) -> JSONResponse:
        return JSONResponse(told(received.state.identity, received.headers))

    return Starlette(
        routes=[StarletteRoute(path, handle) for path in PATHS],
        middleware=[Middleware(latchgate_asgi.ApiKeyMiddleware, client=client, routes=ROUTES, **options)],
    )


def fastapi_app(client: Any, **options: Any) -> Any:
    """FastAPI with dependencies."""
    app = FastAPI()
    api_keys = ApiKeys(app, client, **options)

    @app.get("/orders")
    async def orders(
        received: Request, caller: Annotated[Identity, Depends(api_keys.require("orders.read"))]
    ) -> dict[str, Any]:
        assert received.state.identity is caller
        return told(caller, received.headers)

    @app.get("/export", dependencies=[Depends(api_keys.require(EXPORT))])
    def export(received: Request) -> FastAPIResponse:
        return JSONResponse(told(received.state.identity, received.headers))

    @app.get("/sites/{site}")
    def site(site: str, caller: Annotated[Identity, Depends(api_keys.require(SITE))]) -> dict[str, Any]:
        return told(caller, {})

    @app.get("/tenants/{tenant}")
    def tenant(tenant: str, caller: Annotated[Identity, Depends(api_keys.require(TENANT))]) -> dict[str, Any]:
        return told(caller, {})

    @app.get("/public")
    def public(received: Request) -> dict[str, Any]:
        return told(None, received.headers)

    return app


def flask_app(client: Any, **options: Any) -> Any:
    """Flask behind the WSGI middleware."""
    app = Flask(__name__)

    def handle(**parts: str) -> dict[str, Any]:
        return told(request.environ["latchgate.identity"], dict(request.headers))

    for path in PATHS:
        app.add_url_rule(path.replace("{", "<").replace("}", ">"), path, handle)
    app.wsgi_app = ApiKeyMiddleware(app.wsgi_app, client, routes=ROUTES, **options)  # type: ignore[method-assign]
    return app


APPS: Mapping[str, Callable[..., Any]] = {"ASGI": starlette_app, "FastAPI": fastapi_app, "WSGI": flask_app}


class Answer(NamedTuple):
    """What a client got."""

    status: int
    headers: Mapping[str, str]
    text: str

    def json(self) -> Any:
        """The body."""
        return json.loads(self.text)


async def get(app: Any, path: str, headers: Headers = (), *, peer: str = PEER) -> Answer:
    """What the application answers. headers: bytes as Latin-1, as HTTP has them."""
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    if isinstance(app, Flask):
        told = app.test_client().get(path, headers=pairs, environ_base={"REMOTE_ADDR": peer})
        return Answer(told.status_code, {name.lower(): value for name, value in told.headers.items()}, told.text)
    transport = httpx.ASGITransport(app, client=(peer, 4711))
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        got = await client.get(path, headers=[(name.encode(), value.encode("latin-1")) for name, value in pairs])
    return Answer(got.status_code, got.headers, got.text)


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """A real server, in this event loop, with its lifespan; its `HOST:PORT`."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="on", ws="websockets-sansio"))
    running = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(20):
            while not server.started and not running.done():
                await asyncio.sleep(0.01)
        yield "{}:{}".format(*server.servers[0].sockets[0].getsockname())
    finally:
        server.should_exit = True
        await running
