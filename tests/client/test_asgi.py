"""What is the ASGI middleware's and FastAPI's dependency's alone: WebSockets, lifespans, mounts, OpenAPI, scopes."""

# Annotations are evaluated as they stand: FastAPI reads those of local functions.
import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Security, WebSocket
from fastapi.responses import StreamingResponse
from google.protobuf.duration_pb2 import Duration
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, WebSocketRoute
from starlette.routing import Route as StarletteRoute
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from latchgate import AsyncClient, Identity
from latchgate.asgi import PUBLIC, ApiKeyMiddleware, Route
from latchgate.fastapi import ApiKeys, Requirement
from latchgate.v1 import key_pb2
from tests.client.services import get, serving
from tests.conformance.house import House
from tests.support.server import ServerProcess

LIMIT = key_pb2.Limit(name="calls", rate_limit=key_pb2.RateLimit(limit=9, period=Duration(seconds=60)))


async def greet(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(f"hello {socket.state.identity.user}")
    await socket.close()


@pytest.fixture(params=["ASGI", "FastAPI"])
async def sockets(request: pytest.FixtureRequest, server: ServerProcess) -> AsyncIterator[str]:
    """Where a service greets over WebSockets whoever may read orders."""
    if request.param == "ASGI":
        routes = [Route("/greet", "orders.read", methods={"GET"})]
        middleware = [Middleware(ApiKeyMiddleware, client=server.verify_address, routes=routes)]
        app: Any = Starlette(routes=[WebSocketRoute("/greet", greet)], middleware=middleware)
    else:
        app = FastAPI()
        keys = ApiKeys(app, server.verify_address)
        app.add_api_websocket_route("/greet", greet, dependencies=[Depends(keys.require("orders.read"))])
    async with serving(app) as address:
        yield f"ws://{address}/greet"


async def test_a_websocket_is_opened_for_who_may(house: House, sockets: str) -> None:
    key = house.key(permissions=["orders.read"], owner="ada", limits=[LIMIT])
    async with connect(sockets, additional_headers={"x-api-key": key.key_string}) as socket:
        assert await socket.recv() == "hello ada"
        assert socket.response is not None
        assert socket.response.headers["ratelimit-policy"] == '"calls";q=9;w=60'


async def test_a_websocket_is_refused_with_the_answer_to_any_request(house: House, sockets: str) -> None:
    key = house.key().key_string
    for headers, status in (({}, 400), ({"x-api-key": key}, 403), ({"x-api-key": "nonsense"}, 401)):
        with pytest.raises(InvalidStatus) as refused:
            await connect(sockets, additional_headers=headers)
        assert refused.value.response.status_code == status
        assert json.loads(refused.value.response.body or b"").keys() == {"Code", "Message"}


async def test_where_a_server_cannot_answer_a_handshake_the_websocket_is_closed(server: ServerProcess) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(*_: Any) -> None:
        raise AssertionError("nobody gets here")

    async with AsyncClient(server.verify_address) as client:
        scope: dict[str, Any] = {"type": "websocket", "path": "/", "headers": [], "client": None}
        await ApiKeyMiddleware(app, client)(scope, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "MISSING_API_KEY"}]


@pytest.mark.parametrize("kind", ["ASGI", "FastAPI"])
async def test_an_application_lives_its_life_and_its_client_ends_with_it(
    kind: str, house: House, server: ServerProcess
) -> None:
    lived: list[str] = []
    made: list[AsyncClient] = []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, str]]:
        lived.append("started")
        yield {"database": "open"}
        lived.append("stopped")

    def make() -> AsyncClient:
        made.append(AsyncClient(server.verify_address))
        return made[-1]

    async def handle(request: Any) -> PlainTextResponse:
        return PlainTextResponse(request.state.database)

    if kind == "ASGI":
        middleware = [Middleware(ApiKeyMiddleware, client=make)]
        app: Any = Starlette(routes=[StarletteRoute("/", handle)], lifespan=lifespan, middleware=middleware)
    else:
        app = FastAPI(lifespan=lifespan)
        app.add_route("/", handle)
        keys = ApiKeys(app, make)
        app.get("/mine", dependencies=[Depends(keys.require())])(lambda: "")
    key = house.key().key_string

    headers = {"x-api-key": key}
    async with serving(app) as address, httpx.AsyncClient(base_url=f"http://{address}", headers=headers) as client:
        assert lived == ["started"]
        assert (await client.get("/")).text == "open"
        assert (await client.get("/mine")).status_code in {200, 404}
        assert len(made) == 1
    assert lived == ["started", "stopped"]
    with pytest.raises(Exception, match="closed"):
        await made[0].verify(key)


def test_an_application_is_served_in_one_event_loop_after_another(house: House, server: ServerProcess) -> None:
    async def handle(request: Any) -> PlainTextResponse:
        return PlainTextResponse("ok")

    middleware = [Middleware(ApiKeyMiddleware, client=server.verify_address)]
    app = Starlette(routes=[StarletteRoute("/", handle)], middleware=middleware)
    headers = {"x-api-key": house.key().key_string}

    for _ in range(2):
        assert asyncio.run(get(app, "/", headers)).text == "ok"


async def test_below_a_mount_a_path_is_what_the_application_sees(house: House, server: ServerProcess) -> None:
    async def handle(request: Any) -> PlainTextResponse:
        return PlainTextResponse("ok")

    async with AsyncClient(server.verify_address) as client:
        routes = [Route("/public", PUBLIC), Route("/orders", "orders.read")]
        inner = ApiKeyMiddleware(
            Starlette(routes=[StarletteRoute(path, handle) for path in ("/public", "/orders")]), client, routes=routes
        )
        app = Starlette(routes=[Mount("/shop", inner)])
        headers = {"x-api-key": house.key(permissions=["orders.read"]).key_string}
        answers = [
            (await get(app, path, given)).status
            for path, given in (
                ("/shop/public", {}),
                ("/shop/orders", {}),
                ("/shop/orders", headers),
                ("/shop/x", headers),
            )
        ]
    assert answers == [200, 400, 200, 404]


async def test_what_security_scopes_ask_for_is_required_besides(house: House, server: ServerProcess) -> None:
    app = FastAPI()
    async with AsyncClient(server.verify_address) as client:
        keys = ApiKeys(app, client)
        read = keys.require("orders.read OR orders.list")

        @app.get("/both")
        def both(caller: Annotated[Identity, Security(read, scopes=["orders.write"])]) -> str:
            return caller.key_id

        answers = [
            (await get(app, "/both", {"x-api-key": house.key(permissions=held).key_string})).status
            for held in (["orders.list"], ["orders.write"], ["orders.write", "orders.read"])
        ]
    assert answers == [403, 403, 200]


async def test_a_router_can_require_a_key_for_all_of_its_routes(house: House, server: ServerProcess) -> None:
    app = FastAPI()
    async with AsyncClient(server.verify_address) as client:
        keys = ApiKeys(app, client)
        router = APIRouter(dependencies=[Depends(keys.require("orders.read"))])

        @router.get("/stream")
        def stream() -> StreamingResponse:
            return StreamingResponse(iter(["a", "b"]))

        app.include_router(router)
        key = house.key(permissions=["orders.read"], limits=[LIMIT]).key_string
        refused, let_in = await get(app, "/stream"), await get(app, "/stream", {"x-api-key": key})
    assert (refused.status, let_in.status, let_in.text) == (400, 200, "ab")
    assert let_in.headers["ratelimit"].startswith('"calls";r=8')


async def test_the_documentation_of_an_api_shows_that_it_needs_a_key(server: ServerProcess) -> None:
    app = FastAPI()
    keys = ApiKeys(app, server.verify_address)
    app.get("/orders", dependencies=[Depends(keys.require("orders.read"))])(lambda: "")
    document = app.openapi()
    assert document["components"]["securitySchemes"] == {
        "ApiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"}
    }
    assert document["paths"]["/orders"]["get"]["security"] == [{"ApiKey": []}]


async def test_a_requirement_that_makes_no_sense_denies_everybody(house: House, server: ServerProcess) -> None:
    app = FastAPI()
    async with AsyncClient(server.verify_address) as client:
        keys = ApiKeys(app, client)
        for path, needs in (("/a", "orders.read AND"), ("/b", Requirement(resource="sites/{site}"))):
            app.get(path, dependencies=[Depends(keys.require(needs))])(lambda: "")
        headers = {"x-api-key": house.key(permissions=["*"]).key_string}
        answers = [await get(app, path, headers) for path in ("/a", "/b")]
    assert [(answer.status, answer.json()["Code"]) for answer in answers] == [(500, "MISCONFIGURED")] * 2
    with pytest.raises(ValueError, match="empty"):
        keys.require("")


async def test_an_answer_keeps_one_word_on_limits(house: House, server: ServerProcess) -> None:
    async def handle(request: Any) -> PlainTextResponse:
        return PlainTextResponse("ok", headers={"RateLimit": "mine"})

    async with AsyncClient(server.verify_address) as client:
        app = ApiKeyMiddleware(Starlette(routes=[StarletteRoute("/", handle)]), client)
        headers = {"x-api-key": house.key(limits=[LIMIT]).key_string}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as asking:
            answer = await asking.get("/", headers=headers)
    assert len(answer.headers.get_list("ratelimit")) == 1
    assert "mine" not in answer.headers["ratelimit"]
