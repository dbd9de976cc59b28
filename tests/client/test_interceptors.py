"""The interceptors of gRPC servers, on real ones of both kinds: every arity, every denial, who a handler is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent import futures
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple, cast

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from latchgate import AsyncClient, Client
from latchgate.guard.credentials import CHALLENGE
from latchgate.interceptors import (
    PUBLIC,
    ApiKeyInterceptor,
    AsyncApiKeyInterceptor,
    Needs,
    Requirement,
    current_identity,
    current_verification,
)
from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2
from tests.client.denials import every_denial
from tests.conformance.house import House
from tests.support.server import ServerProcess

METHODS: dict[str, Needs] = {
    "/shop.Orders/*": "orders.read",
    "/shop.Orders/Export": Requirement(permissions="orders.export", capability="export"),
    "/shop.Orders/Paris": Requirement(permissions="orders.read", resource="sites/paris"),
    "/shop.Orders/Other": Requirement(tenant="other"),
    "/shop.Health/Check": PUBLIC,
}
PLACES = {"orders": "Get", "export": "Export", "sites/paris": "Paris", "tenants/other": "Other"}
ARITIES = {"Get": "unary_unary", "List": "unary_stream", "Put": "stream_unary", "Chat": "stream_stream"}
ARITIES |= dict.fromkeys(("Export", "Paris", "Other"), "unary_unary")
KINDS = ("grpc", "grpc.aio")


def who() -> bytes:
    identity, verification = current_identity(), current_verification()
    assert identity is (None if verification is None else verification.identity)
    return b"nobody" if identity is None else identity.key_id.encode()


class Blocking:
    """Handlers as grpc.server calls them."""

    def unary_unary(self, request: bytes, context: Any) -> bytes:
        return who()

    def unary_stream(self, request: bytes, context: Any) -> Iterator[bytes]:
        for _ in range(3):
            yield who()

    def stream_unary(self, requests: Iterator[bytes], context: Any) -> bytes:
        return b" ".join(who() for _ in requests)

    def stream_stream(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        for _ in requests:
            yield who()


class Awaiting:
    """The same as grpc.aio.server calls them."""

    async def unary_unary(self, request: bytes, context: Any) -> bytes:
        return who()

    async def unary_stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for _ in range(3):
            yield who()

    async def stream_unary(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return b" ".join([who() async for _ in requests])

    async def stream_stream(self, requests: AsyncIterator[bytes], context: Any) -> None:
        async for _ in requests:
            await context.write(who())


def handlers(methods: Any) -> list[Any]:
    """The services: Orders, one that nobody named, and one for everybody."""
    orders = {
        name: getattr(grpc, f"{arity}_rpc_method_handler")(getattr(methods, arity)) for name, arity in ARITIES.items()
    }
    unary: dict[str, Any] = {"Check": grpc.unary_unary_rpc_method_handler(methods.unary_unary)}
    services = {"shop.Orders": orders, "shop.Forgotten": unary, "shop.Health": unary}
    return [grpc.method_handlers_generic_handler(name, methods) for name, methods in services.items()]


@asynccontextmanager
async def serving(kind: str, client: Any, methods: Any = METHODS, **options: Any) -> AsyncIterator[str]:
    """A server that is protected; its address."""
    if kind == "grpc":
        interceptor = ApiKeyInterceptor(client, methods, **options)
        server = grpc.server(futures.ThreadPoolExecutor(8), handlers=handlers(Blocking()), interceptors=[interceptor])
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        yield address
        server.stop(None).wait()
        interceptor.close()
    else:
        asking = AsyncApiKeyInterceptor(client, methods, **options)
        aio = grpc.aio.server(handlers=handlers(Awaiting()), interceptors=[asking])
        address = f"127.0.0.1:{aio.add_insecure_port('127.0.0.1:0')}"
        await aio.start()
        yield address
        await aio.stop(None)
        await asking.close()


class Outcome(NamedTuple):
    """How an RPC ended."""

    code: grpc.StatusCode
    details: str
    trailing: dict[str, Any]
    responses: list[bytes]


@pytest.fixture(params=KINDS)
async def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def address(kind: str, server: ServerProcess) -> AsyncIterator[str]:
    async with serving(kind, server.verify_address) as made:
        yield made


async def ask(
    address: str, method: str, *metadata: tuple[str, str], messages: Sequence[bytes] = (b"1", b"2", b"3")
) -> Outcome:
    """Call a method as anybody would. messages: of a stream; who is refused while sending may see INTERNAL instead."""
    path = method if method.startswith("/") else f"/shop.Orders/{method}"
    arity = ARITIES.get(method, "unary_unary")
    async with grpc.aio.insecure_channel(address) as channel:
        request: Any = iter(messages) if arity.startswith("stream") else b"1"
        call = getattr(channel, arity)(path)(request, metadata=metadata, timeout=20)
        responses = []
        with suppress(grpc.aio.AioRpcError):
            responses = [response async for response in call] if arity.endswith("stream") else [await call]
        trailing = dict(await call.trailing_metadata())
        return Outcome(await call.code(), await call.details(), trailing, responses)


@pytest.mark.parametrize("method", ["Get", "List", "Put", "Chat"])
async def test_a_handler_of_any_arity_is_told_who_calls(house: House, address: str, method: str) -> None:
    key = house.key(permissions=["orders.read"])
    expected = key.key.key_id.encode()
    outcome = await ask(address, method, ("x-api-key", key.key_string))
    assert outcome.code is grpc.StatusCode.OK
    assert b" ".join(outcome.responses).split() == [expected] * (1 if method == "Get" else 3)
    for metadata in ((), (("authorization", "Bearer nonsense"),)):
        refused = await ask(address, method, *metadata, messages=())
        assert (refused.code, refused.responses) == (grpc.StatusCode.UNAUTHENTICATED, [])


async def test_every_denial_is_told_as_envoy_tells_it(house: House, address: str) -> None:
    codes = {
        400: grpc.StatusCode.UNAUTHENTICATED,
        401: grpc.StatusCode.UNAUTHENTICATED,
        403: grpc.StatusCode.PERMISSION_DENIED,
        404: grpc.StatusCode.NOT_FOUND,
        429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
    for denied in every_denial(house):
        if denied.name == "another address":
            continue  # everybody calls from here
        outcome = await ask(address, PLACES[denied.place], *([("x-api-key", denied.key)] if denied.key else []))
        assert outcome.code is codes[denied.status], denied
        assert outcome.details.partition(": ")[0] == denied.code
        assert outcome.trailing.get("www-authenticate") == (CHALLENGE if denied.status == 401 else None)
        assert ("retry-after" in outcome.trailing) == ("ratelimit" in outcome.trailing) == (denied.status == 429)


async def test_a_method_that_nobody_named_is_denied_also_to_who_may_everything(house: House, address: str) -> None:
    key = house.key(permissions=["*"]).key_string
    outcome = await ask(address, "/shop.Forgotten/Check", ("x-api-key", key))
    assert (outcome.code, outcome.responses) == (grpc.StatusCode.PERMISSION_DENIED, [])
    assert (await ask(address, "/shop.Orders/Nothing", ("x-api-key", key))).code is grpc.StatusCode.UNIMPLEMENTED


async def test_what_is_public_needs_no_key_and_has_no_caller(house: House, address: str) -> None:
    key = house.key(permissions=["orders.read"])
    for metadata in ((), (("x-api-key", key.key_string),), (("x-api-key", "nonsense"),)):
        assert (await ask(address, "/shop.Health/Check", *metadata)).responses == [b"nobody"]
    # A thread, or a loop, that has just served somebody has forgotten who that was.
    for _ in range(10):
        assert (await ask(address, "Get", ("x-api-key", key.key_string))).responses == [key.key.key_id.encode()]
        assert (await ask(address, "/shop.Health/Check")).responses == [b"nobody"]


async def test_callers_at_the_same_time_are_told_apart(house: House, address: str) -> None:
    keys = [house.key(permissions=["orders.read"]) for _ in range(4)]
    calls = [(key, method) for key in keys for method in ("Get", "List", "Put", "Chat")]
    outcomes = await asyncio.gather(*(ask(address, method, ("x-api-key", key.key_string)) for key, method in calls))
    for (key, _), outcome in zip(calls, outcomes, strict=True):
        assert set(b" ".join(outcome.responses).split()) == {key.key.key_id.encode()}


async def test_where_limits_stand_is_told_in_the_trailing_metadata(house: House, address: str) -> None:
    rate = key_pb2.RateLimit(limit=2, period=Duration(seconds=3_600), burst=1)
    key = house.key(permissions=["orders.read"], limits=[key_pb2.Limit(name="calls", rate_limit=rate)]).key_string
    passed, denied = [await ask(address, "Get", ("x-api-key", key)) for _ in range(2)]
    assert (passed.code, denied.code) == (grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED)
    for outcome in (passed, denied):
        assert outcome.trailing["ratelimit-policy"] == '"calls";q=2;w=3600'
    assert 1_700 < int(denied.trailing["retry-after"]) <= 1_800


async def test_the_address_is_the_peers_unless_metadata_is_named(
    house: House, kind: str, address: str, server: ServerProcess
) -> None:
    elsewhere = key_pb2.IpAllowlist(enabled=True, ranges=["192.0.2.7"])
    key = ("x-api-key", house.key(permissions=["orders.read"], ip_allowlist=elsewhere).key_string)
    here = key_pb2.IpAllowlist(enabled=True, ranges=["127.0.0.1"])
    own = ("x-api-key", house.key(permissions=["orders.read"], ip_allowlist=here).key_string)
    claims = [(name, "192.0.2.7") for name in ("x-forwarded-for", "x-client-ip")]
    assert (await ask(address, "Get", own, *claims)).code is grpc.StatusCode.OK
    assert (await ask(address, "Get", key, *claims)).code is grpc.StatusCode.PERMISSION_DENIED
    async with serving(kind, server.verify_address, client_ip_header="x-client-ip") as believing:
        assert (await ask(believing, "Get", key, *claims)).code is grpc.StatusCode.OK
        assert (await ask(believing, "Get", key, *claims, *claims)).code is grpc.StatusCode.PERMISSION_DENIED
        assert (await ask(believing, "Get", own)).code is grpc.StatusCode.PERMISSION_DENIED


async def test_nobody_passes_while_latchgate_is_gone(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    maker: Any = (lambda: Client("127.0.0.1:1", timeout=0.2)) if kind == "grpc" else None
    with caplog.at_level(logging.DEBUG):
        async with serving(kind, maker or (lambda: AsyncClient("127.0.0.1:1", timeout=0.2))) as address:
            outcomes = [
                await ask(address, method, ("x-api-key", "lg_0123456789abcdefghijkl.a-secret")) for method in ARITIES
            ]
            for outcome in outcomes:
                assert (outcome.code, outcome.responses) == (grpc.StatusCode.UNAVAILABLE, [])
                assert outcome.trailing["retry-after"] == "1"
            assert (await ask(address, "/shop.Health/Check")).code is grpc.StatusCode.OK
    assert "a-secret" not in caplog.text + repr(outcomes)


async def test_a_stream_that_its_caller_leaves_is_closed(house: House, server: ServerProcess, kind: str) -> None:
    closed: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    class Endless(Blocking):
        def unary_stream(self, request: bytes, context: Any) -> Iterator[bytes]:
            try:
                while context.is_active():
                    yield who()
            finally:
                loop.call_soon_threadsafe(closed.put_nowait, who().decode())

    class EndlessAwaiting(Awaiting):
        async def unary_stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
            try:
                while True:
                    yield who()
            finally:
                closed.put_nowait(who().decode())

    key = house.key(permissions=["orders.read"])
    methods: Callable[[], Any] = Endless if kind == "grpc" else EndlessAwaiting
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.client.test_interceptors." + ("Blocking" if kind == "grpc" else "Awaiting"), methods)
        async with serving(kind, server.verify_address) as address, grpc.aio.insecure_channel(address) as channel:
            call: Any = cast("Any", channel).unary_stream("/shop.Orders/List")(
                b"", metadata=[("x-api-key", key.key_string)]
            )
            assert await call.read() == key.key.key_id.encode()
            call.cancel()
            assert await asyncio.wait_for(closed.get(), 20) == key.key.key_id


async def test_a_handler_that_would_not_know_who_calls_is_refused(house: House, server: ServerProcess) -> None:
    interceptor = AsyncApiKeyInterceptor(server.verify_address, METHODS)
    aio = grpc.aio.server(handlers=handlers(Blocking()), interceptors=[interceptor])
    address = f"127.0.0.1:{aio.add_insecure_port('127.0.0.1:0')}"
    await aio.start()
    key = house.key(permissions=["orders.read"]).key_string
    outcome = await ask(address, "Get", ("x-api-key", key))
    await aio.stop(None)
    assert outcome.code not in {grpc.StatusCode.OK, grpc.StatusCode.UNIMPLEMENTED}
    assert outcome.responses == []


async def test_a_revocation_that_returned_is_in_force(house: House, address: str) -> None:
    key = house.key(permissions=["orders.read"])
    assert (await ask(address, "Get", ("x-api-key", key.key_string))).code is grpc.StatusCode.OK
    house.root.RevokeKey(pb.RevokeKeyRequest(key_id=key.key.key_id))
    assert (await ask(address, "Get", ("x-api-key", key.key_string))).code is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    "methods",
    [
        {"shop.Orders/Get": "a"},
        {"/shop.Orders": "a"},
        {"/shop.Orders/": "a"},
        {"/*": PUBLIC},
        {"/*/*": PUBLIC},
        {"/shop.*/Get": PUBLIC},
        {"/shop.Orders/Get*": PUBLIC},
        {"/shop.Orders/Get": ""},
        {"/shop.Orders/Get": Requirement(resource="sites/{site}")},
    ],
)
@pytest.mark.parametrize("make", [ApiKeyInterceptor, AsyncApiKeyInterceptor])
def test_what_would_open_a_method_by_mistake_is_refused_at_the_start(make: Any, methods: Any) -> None:
    with pytest.raises(ValueError, match=r"expected to be|empty permission|no parts"):
        make("127.0.0.1:1", methods)
