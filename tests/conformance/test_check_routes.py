"""Authorization/Check over the network, as Envoy calls it: what is asked, and what is answered."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import pytest

from latchgate.envoy.v1 import ext_authz_pb2
from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2
from latchgate_server.core import bounds
from latchgate_server.transport.check_request import Headers, request_info
from tests.conformance.house import House
from tests.conformance.sample_keys import claims, update
from tests.support.check import Check, request
from tests.support.server import Admin, ServerProcess

TRANSPORTS = ["native", "grpcio", "tls"]

NAMES = {"key-id", "tenant", "user", "owner", "roles", "permissions", "capabilities", "environment", "claims"}
IDENTITY_HEADERS = {f"x-latchgate-{name}" for name in NAMES}


@pytest.fixture(scope="module")
def check(server: ServerProcess) -> Iterator[Check]:
    stub = Check(server.verify_address, server.credentials)
    yield stub
    stub.close()


@pytest.fixture(scope="module")
def made(house: House) -> pb.CreateKeyResponse:
    tenant_id = house.tenant(plan_id=house.plan(capabilities=["export", "sso:saml"]))
    return house.key(
        tenant_id,
        owner="Jürgen, 50%",
        default_user=" bot\u2028",
        permissions=["orders.read", "stock.*"],
        claims=claims(site="berlin\x7f", limit=5),
        environment="production",
        resources=["sites/berlin/*"],
    )


@pytest.fixture(scope="module")
def key(made: pb.CreateKeyResponse) -> Mapping[str, str]:
    return {"x-api-key": made.key_string}


def code(body: str) -> str:
    told = json.loads(body)
    assert set(told) == {"Code", "Message"}
    return str(told["Code"])


# Allowed.


def test_the_upstream_is_told_who_calls_in_printable_ascii(
    check: Check, key: Mapping[str, str], made: pb.CreateKeyResponse
) -> None:
    answer = check(key)
    assert answer.allowed
    assert answer.headers == {
        "x-latchgate-key-id": made.key.key_id,
        "x-latchgate-tenant": made.key.tenant_id,
        "x-latchgate-user": "%20bot%E2%80%A8",
        "x-latchgate-owner": "J%C3%BCrgen, 50%25",
        "x-latchgate-permissions": "orders.read,stock.*",
        "x-latchgate-capabilities": "export,sso:saml",
        "x-latchgate-environment": "production",
        "x-latchgate-claims": '{"limit":5,"site":"berlin\\u007f"}',
    }


def test_identity_headers_without_a_value_and_the_credential_are_removed_and_none_is_both_set_and_removed(
    check: Check, key: Mapping[str, str], house: House
) -> None:
    for headers in (key, {"x-api-key": house.key().key_string}):
        answer = check(headers)
        assert answer.allowed
        assert answer.headers.keys() | answer.removed == IDENTITY_HEADERS | {"x-api-key", "api-key"}
        assert not answer.headers.keys() & answer.removed


def test_whatever_an_upstream_could_take_for_an_identity_header_is_removed(
    check: Check, key: Mapping[str, str]
) -> None:
    foreign = {"x_latchgate_tenant", "x-latchgate_owner", "x-latchgate-admin"}
    answer = check({**key, **dict.fromkeys(foreign, "evil"), "x-latchgate-tenant": "evil", "x-other": "1"})
    assert foreign <= answer.removed
    assert not answer.removed & {"x-latchgate-tenant", "x-other"}
    answer = check(raw=[*[(name, b"evil") for name in foreign], ("x-api-key", key["x-api-key"].encode())])
    assert foreign <= answer.removed


def test_filters_are_told_who_calls_without_the_credential(
    check: Check, key: Mapping[str, str], made: pb.CreateKeyResponse
) -> None:
    answer = check(key)
    assert answer.metadata["key_id"] == made.key.key_id
    assert answer.metadata["claims"] == {"site": "berlin\x7f", "limit": 5}
    assert made.key_string.partition(".")[2] not in str(answer.response)
    denied = check(key, route={"permissions": "x"})
    assert denied.metadata["denial_reason"] == "INSUFFICIENT_PERMISSIONS"
    assert denied.metadata["key_id"] == made.key.key_id


def test_a_change_of_the_key_is_told_at_once(check: Check, root: Admin, house: House) -> None:
    made = house.key(owner="ada")
    headers = {"x-api-key": made.key_string}
    assert check(headers).headers["x-latchgate-owner"] == "ada"
    update(root, made.key.key_id, "owner", owner="bob")
    assert check(headers).headers["x-latchgate-owner"] == "bob"
    root.DisableKey(pb.DisableKeyRequest(key_id=made.key.key_id))
    assert code(check(headers).body) == "API_KEY_DISABLED"


# Where the credential is.


def test_headers_that_were_sent_one_by_one_are_read_as_well(check: Check, key: Mapping[str, str]) -> None:
    key_string = key["x-api-key"].encode()
    assert check(raw=[("x-api-key", key_string)]).allowed
    assert check(raw=[("X-Api-Key", key_string), ("x-api-key", key_string)]).allowed
    answer = check(raw=[("x-api-key", key_string), ("x-api-key", key_string + b"x")])
    assert (answer.http, code(answer.body)) == (400, "INVALID_API_KEY")
    answer = check(key, raw=[("x-api-key", key_string + b"x")])
    assert (answer.http, code(answer.body)) == (400, "INVALID_API_KEY")
    assert code(check(raw=[("x-api-key", b"\xff\0\r\n")]).body) == "INVALID_API_KEY"


@pytest.mark.parametrize("value", ["\0", "é", "a\r\nb: c", "x" * 5_000, "lg_.", ".", "\U0010ffff", "{}"])
def test_a_credential_that_is_nonsense_is_denied_and_not_repeated(check: Check, value: str) -> None:
    answer = check({"x-api-key": value})
    assert (answer.http, code(answer.body)) == (401, "INVALID_API_KEY")
    assert json.loads(answer.body)["Message"] == "The API key does not exist or is invalid."
    assert answer.headers == {"content-type": "application/json", "www-authenticate": "ApiKey, Bearer"}


def test_a_request_without_http_is_denied(check: Check) -> None:
    without = request()
    without.attributes.ClearField("request")
    for message in (ext_authz_pb2.CheckRequest(), without):
        answer = check.ask(message)
        assert (answer.http, code(answer.body)) == (400, "MISSING_API_KEY")


@pytest.mark.parametrize("message", [b"\xff", b"\x0a\x05", b"\x0a\x0f\x22\x0d\x12\x0b\x1a\x09\x0a\x01\xff\x12\x04aaaa"])
def test_what_is_no_request_is_denied_and_no_rpc_error(check: Check, message: bytes) -> None:
    assert check.ask_raw(message).http == 400


def test_a_401_says_how_to_present_a_key(check: Check) -> None:
    assert check({"x-api-key": "x"}).headers == {
        "content-type": "application/json",
        "www-authenticate": "ApiKey, Bearer",
    }


# What a route requires.


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        ({"permissions": "orders.read AND NOT orders.write"}, ""),
        ({"permissions": "orders.write"}, "INSUFFICIENT_PERMISSIONS"),
        ({"capability": "export"}, ""),
        ({"capability": "import"}, "CAPABILITY_NOT_IN_PLAN"),
        ({"tenant": "another"}, "NOT_FOUND"),
        ({"resource": "sites/berlin/orders"}, ""),
        ({"resource": "sites/paris/orders"}, "NOT_FOUND"),
        ({"cost": "0"}, ""),
        ({"cost": str(bounds.COST)}, ""),
        ({"permissions": "orders.read", "capability": "export", "resource": "sites/berlin/x", "cost": "7"}, ""),
    ],
)
def test_a_route_requires_what_its_extensions_say(
    check: Check, key: Mapping[str, str], route: Mapping[str, str], expected: str
) -> None:
    answer = check(key, route=route)
    assert ("" if answer.allowed else code(answer.body)) == expected


def test_a_route_may_be_a_tenants_own(check: Check, key: Mapping[str, str], made: pb.CreateKeyResponse) -> None:
    assert check(key, route={"tenant": made.key.tenant_id}).allowed


MALFORMED: list[Mapping[str, str]] = [
    {"permission": "orders.read"},
    {"Permissions": "orders.read"},
    {"": ""},
    {"permissions": ""},
    {"permissions": "orders.read AND"},
    {"permissions": "(" * 100},
    {"capability": ""},
    {"capability": "a b"},
    {"tenant": ""},
    {"tenant": "Acme Inc."},
    {"resource": "/sites"},
    {"resource": "sites/../x"},
    {"cost": ""},
    {"cost": "-1"},
    {"cost": "1.5"},
    {"cost": "one"},
    {"cost": "²"},
    {"cost": str(bounds.COST + 1)},
    {"cost": "9" * 5_000},
]


@pytest.mark.parametrize("route", MALFORMED, ids=str)
def test_a_route_that_is_misconfigured_denies_whoever_asks(
    check: Check, key: Mapping[str, str], route: Mapping[str, str]
) -> None:
    for headers in (key, {}):
        answer = check(headers, route=route)
        assert answer.kind == "denied_response", "an error response lets the request in where Envoy fails open"
        assert (answer.http, code(answer.body)) == (500, "MISCONFIGURED")


def test_a_misconfigured_route_is_logged_once_a_minute_at_most(check: Check, server: ServerProcess) -> None:
    for route in (*MALFORMED, *MALFORMED):
        check(route=route)
    told = [line for line in server.log if '"route_misconfigured"' in line]
    assert len(told) == 1
    assert "context_extensions" in told[0]


def test_an_identity_that_does_not_fit_into_headers_denies(check: Check, root: Admin, house: House) -> None:
    """An upstream that is told a part of what restricts a key might take it for all."""
    tenant_id = house.tenant()
    big = claims(x="x" * (bounds.CLAIMS_BYTES - 100))
    roles = [house.role(tenant_id, claims=claims(**{f"y{n}": "x" * 16_000})) for n in range(3)]
    made = house.key(tenant_id, claims=big, role_ids=roles[:1])
    headers = {"x-api-key": made.key_string}
    assert check(headers).allowed
    update(root, made.key.key_id, "role_ids", role_ids=roles)
    answer = check(headers)
    assert (answer.http, code(answer.body)) == (500, "MISCONFIGURED")


# gRPC clients.


@pytest.mark.parametrize(
    ("headers", "route", "status"),
    [({}, {}, "16"), ({"x-api-key": "x"}, {}, "16"), ({}, {"resource": "sites/paris"}, "5"), ({}, {"cost": "x"}, "")],
)
def test_grpc_clients_are_told_a_grpc_status_and_plain_text(
    check: Check, key: Mapping[str, str], headers: Mapping[str, str], route: Mapping[str, str], status: str
) -> None:
    credential = {**key, **headers} if "resource" in route else headers
    answer = check({**credential, "content-type": "application/grpc+proto"}, route=route)
    assert answer.headers.get("grpc-status", "") == status
    assert "content-type" not in answer.headers
    assert ": " in answer.body
    assert "{" not in answer.body


# The client's address.


def test_the_peer_is_the_client_and_no_header_is_believed(check: Check, house: House) -> None:
    made = house.key(ip_allowlist=key_pb2.IpAllowlist(enabled=True, ranges=["198.51.100.0/24"]))
    headers = {"x-api-key": made.key_string}
    assert check(headers, peer="198.51.100.7").allowed
    assert check(headers, peer="::ffff:198.51.100.7").allowed
    lies = dict.fromkeys(["x-forwarded-for", "x-client-ip", "x-envoy-external-address", "forwarded"], "198.51.100.7")
    for peer in ("192.0.2.7", "", "/run/envoy.sock"):
        answer = check({**headers, **lies}, peer=peer)
        assert (answer.http, code(answer.body)) == (403, "IP_NOT_AUTHORIZED")


def test_a_unix_socket_or_no_source_at_all_is_no_address(check: Check, house: House) -> None:
    made = house.key(ip_allowlist=key_pb2.IpAllowlist(enabled=True, ranges=["0.0.0.0/0", "::/0"]))
    message = request({"x-api-key": made.key_string})
    message.attributes.source.address.pipe.path = "@198.51.100.7"
    assert check.ask(message).http == 403
    message.attributes.ClearField("source")
    assert check.ask(message).http == 403


# What is recorded.


def test_what_is_recorded_of_a_request_has_no_query_in_which_a_credential_may_be() -> None:
    asked = request({"user-agent": "curl"}, path="/orders/17?api_key=secret&x=1").attributes
    asked.request.http.method, asked.request.http.host = "GET", "api.example.com"
    recorded = request_info(asked, Headers(asked.request.http))
    assert tuple(recorded) == ("GET", "api.example.com", "/orders/17", "curl")
