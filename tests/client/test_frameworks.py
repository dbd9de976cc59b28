"""Services in FastAPI, Starlette and Flask that Latchgate protects answer alike, and as Envoy does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from latchgate import AsyncClient, Client
from latchgate.guard.credentials import CHALLENGE
from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2
from tests.client.denials import PEER, Denied, every_denial
from tests.client.services import APPS, get
from tests.conformance.house import House
from tests.support.server import ServerProcess

HOUR = Duration(seconds=3_600)


@pytest.fixture(params=APPS)
async def framework(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def app(framework: str, server: ServerProcess) -> AsyncIterator[Any]:
    """The application, with a client that the test closes."""
    if framework == "WSGI":
        with Client(server.verify_address) as client:
            yield APPS[framework](client)
    else:
        async with AsyncClient(server.verify_address) as client:
            yield APPS[framework](client)


@pytest.fixture(scope="module")
def denials(house: House) -> list[Denied]:
    return list(every_denial(house))


def key_of(house: House, **fields: Any) -> pb.CreateKeyResponse:
    return house.key(permissions=["orders.*"], **fields)


@pytest.mark.parametrize(
    "header", [("x-api-key", "{}"), ("api-key", "{}"), ("authorization", "Bearer {}"), ("Authorization", "ApiKey {}")]
)
async def test_a_handler_is_told_who_calls_and_not_the_key(
    house: House, app: Any, framework: str, header: tuple[str, str]
) -> None:
    key = key_of(house)
    secret = key.key_string.partition(".")[2]
    answer = await get(app, "/orders", {header[0]: header[1].format(key.key_string), "accept": "x"})
    assert (answer.status, answer.json()["caller"]) == (200, key.key.key_id)
    assert answer.json()["saw"]["accept"] == "x"
    # A dependency runs where FastAPI has long handed out the headers.
    assert (secret in answer.text) == (framework == "FastAPI")


async def test_every_denial_is_answered_as_envoy_answers_it(denials: list[Denied], app: Any) -> None:
    assert len(denials) == 15
    for denied in denials:
        answer = await get(app, f"/{denied.place}", {"x-api-key": denied.key} if denied.key else {})
        assert answer.json().keys() == {"Code", "Message"}, denied
        assert (answer.status, answer.json()["Code"]) == (denied.status, denied.code), denied
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers.get("www-authenticate") == (CHALLENGE if denied.status == 401 else None)
        assert ("retry-after" in answer.headers) == ("ratelimit" in answer.headers) == (denied.status == 429)


async def test_two_headers_of_a_name_that_differ_are_no_key(house: House, app: Any) -> None:
    key = key_of(house).key_string
    twice = await get(app, "/orders", [("x-api-key", key), ("x-api-key", key)])
    differing = await get(app, "/orders", [("x-api-key", key), ("x-api-key", "nonsense")])
    assert (twice.status, differing.status, differing.json()["Code"]) == (200, 400, "INVALID_API_KEY")


async def test_limits_are_told_to_who_passes_and_who_does_not(house: House, app: Any) -> None:
    limit = key_pb2.Limit(name="calls", rate_limit=key_pb2.RateLimit(limit=2, period=HOUR, burst=1))
    key = key_of(house, limits=[limit]).key_string
    passed, denied = [await get(app, "/orders", {"x-api-key": key}) for _ in range(2)]
    assert (passed.status, denied.status, denied.json()["Code"]) == (200, 429, "RATE_LIMITED")
    for answer in (passed, denied):
        assert answer.headers["ratelimit-policy"] == '"calls";q=2;w=3600'
        assert answer.headers["ratelimit"].startswith('"calls";r=0;t=')
    assert 1_700 < int(denied.headers["retry-after"]) <= 1_800


async def test_what_is_public_needs_no_key_and_has_no_caller(house: House, app: Any) -> None:
    for headers in ({}, {"x-api-key": key_of(house).key_string}):
        answer = await get(app, "/public", headers)
        assert (answer.status, answer.json()["caller"]) == (200, None)


async def test_a_path_that_nobody_named_is_not_there(house: House, app: Any, framework: str) -> None:
    headers = {"x-api-key": key_of(house).key_string}
    # Starlette's router takes the last for /orders, where the requirement of FastAPI's dependency is met.
    paths = ["/forgotten", "/orders/", "//orders", "/Orders", "/orders%0A"]
    for path in paths[:-1] if framework == "FastAPI" else paths:
        answer = await get(app, path, headers)
        assert answer.status in {307, 308, 404}, path
        assert "caller" not in answer.text


async def test_the_address_is_the_peers_and_no_header_changes_that(house: House, app: Any) -> None:
    allowlist = key_pb2.IpAllowlist(enabled=True, ranges=[f"{PEER}/32"])
    key = key_of(house, ip_allowlist=allowlist).key_string
    forged = dict.fromkeys(("x-forwarded-for", "x-real-ip", "x-client-ip", "forwarded", "remote-addr"), PEER)
    assert (await get(app, "/orders", {"x-api-key": key})).status == 200
    assert (await get(app, "/orders", {"x-api-key": key, **forged}, peer="198.51.100.7")).status == 403


async def test_a_header_is_believed_where_it_is_named_and_only_once(
    house: House, server: ServerProcess, framework: str
) -> None:
    key = key_of(house, ip_allowlist=key_pb2.IpAllowlist(enabled=True, ranges=["198.51.100.7/32"])).key_string
    app = APPS[framework](server.verify_address, client_ip_header="X-Client-IP")
    expected = {("198.51.100.7",): 200, (PEER,): 403, (): 403, ("198.51.100.7", PEER): 403}
    for addresses, status in expected.items():
        named = [("x-client-ip", address) for address in addresses]
        answer = await get(app, "/orders", [("x-api-key", key), *named], peer="198.51.100.7" if not addresses else PEER)
        assert answer.status == status, addresses


async def test_a_revocation_that_returned_is_in_force(house: House, app: Any) -> None:
    key = key_of(house)
    assert (await get(app, "/orders", {"x-api-key": key.key_string})).status == 200
    house.root.RevokeKey(pb.RevokeKeyRequest(key_id=key.key.key_id))
    assert (await get(app, "/orders", {"x-api-key": key.key_string})).status == 401


async def test_nobody_passes_while_latchgate_is_gone(framework: str, caplog: pytest.LogCaptureFixture) -> None:
    kind: Any = Client if framework == "WSGI" else AsyncClient
    app = APPS[framework](lambda: kind("127.0.0.1:1", timeout=0.2))
    with caplog.at_level(logging.DEBUG):
        answer = await get(app, "/orders", {"x-api-key": "lg_0123456789abcdefghijkl.a-secret"})
    assert (answer.status, answer.json()["Code"], answer.headers["retry-after"]) == (503, "UNAVAILABLE", "1")
    assert "could not decide" in caplog.text
    assert "a-secret" not in caplog.text
    assert (await get(app, "/public")).status == 200


async def test_whatever_is_wrong_with_a_request_is_a_denial(house: House, app: Any) -> None:
    key = key_of(house).key_string
    for header in ("\x00", "\xff\xfe", "Ключ".encode().decode("latin-1"), "a" * 9_000, "," * 999, key + "\x80"):
        answer = await get(app, "/orders", [("x-api-key", header)])
        assert answer.status in {400, 401}, header
    for site in ("a" * 600, "..", "%2e%2e", "%00", "*", "{site}"):
        answer = await get(app, f"/sites/{site}", {"x-api-key": house.key(permissions=["x"]).key_string})
        assert answer.status in {403, 404}, site


async def test_many_requests_at_once_each_get_their_own_answer(house: House, app: Any) -> None:
    keys = [key_of(house) for _ in range(4)]
    wanted = [keys[place % 4] for place in range(40)]
    answers = await asyncio.gather(*(get(app, "/orders", {"x-api-key": key.key_string}) for key in wanted))
    assert [answer.json()["caller"] for answer in answers] == [key.key.key_id for key in wanted]
