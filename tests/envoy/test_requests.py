"""Requests through the real Envoy: what of them the upstream sees, and what their clients are told."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.duration_pb2 import Duration

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2
from tests.conformance.house import House
from tests.conformance.sample_keys import claims
from tests.support.envoy import Envoy, Reply, exchange, get
from tests.support.upstream import ECHO_METHOD, Seen, Upstream

Keys = Mapping[str, str]

DENIED: Mapping[str, tuple[int, str]] = {
    "TENANT_DISABLED": (401, "COMPANY_API_DISABLED"),
    "API_KEY_REVOKED": (401, "API_KEY_DISABLED"),
    "API_KEY_DISABLED": (401, "API_KEY_DISABLED"),
    "API_KEY_EXPIRED": (401, "API_KEY_EXPIRED"),
    "IP_NOT_AUTHORIZED": (403, "IP_NOT_AUTHORIZED"),
}


@pytest.fixture(scope="module")
def made(house: House) -> pb.CreateKeyResponse:
    tenant_id = house.tenant(plan_id=house.plan(capabilities=["export"]))
    return house.key(
        tenant_id,
        owner="ada",
        permissions=["orders.read"],
        claims=claims(site="berlin"),
        resources=["sites/berlin/*"],
    )


@pytest.fixture(scope="module")
def key(made: pb.CreateKeyResponse) -> str:
    return str(made.key_string)


def assert_denied(reply: Reply, status: int, code: str) -> None:
    assert reply.status == status, reply
    assert reply.header("content-type") == "application/json"
    told = reply.json
    assert list(told) == ["Code", "Message"]
    assert told["Code"] == code
    assert told["Message"]
    assert bool(reply.header("www-authenticate")) == (status == 401)
    assert bool(reply.header("retry-after")) == (status in {429, 503})


# Allowed.


def test_the_upstream_sees_who_calls_and_no_credential(envoy: Envoy, made: pb.CreateKeyResponse, key: str) -> None:
    for headers in (("x-api-key", key), ("Api-Key", key), ("authorization", f"Bearer {key}")):
        reply = get(envoy.port(), "/orders?x=1", headers)
        assert reply.status == 200, reply
        seen = Seen.of(reply.body)
        assert seen.line == "GET /orders?x=1 HTTP/1.1"
        assert seen.identity == {
            "key-id": made.key.key_id,
            "tenant": made.key.tenant_id,
            "user": "ada",
            "owner": "ada",
            "permissions": "orders.read",
            "capabilities": "export",
            "claims": '{"site":"berlin"}',
        }
        assert not {"x-api-key", "api-key", "authorization"} & {name.lower() for name in seen.headers}
        assert key.partition(".")[2].encode() not in reply.body


SPOOFED = [
    ("X-Latchgate-Tenant", "evil"),
    ("x-latchgate-tenant", "evil"),
    ("X-LATCHGATE-ROLES", "evil"),
    ("x-latchgate-environment", "evil"),
    ("x-latchgate-user", ""),
    ("x-latchgate-admin", "evil"),
]


@pytest.mark.parametrize("listener", ["api", "raw", "bare"])
def test_a_clients_own_identity_headers_never_reach_the_upstream(envoy: Envoy, key: str, listener: str) -> None:
    seen = Seen.of(get(envoy.port(listener), "/", *SPOOFED, ("x-api-key", key), *SPOOFED).body)
    assert "evil" not in json.dumps(seen.headers)
    assert seen.identity["user"] == "ada"
    assert not seen.identity.keys() & {"roles", "environment", "admin"}


def test_identity_headers_in_other_spellings_never_reach_the_upstream(envoy: Envoy, key: str) -> None:
    spoofed = [("x_latchgate_tenant", "evil"), ("X-Latchgate_Roles", "evil")]
    assert get(envoy.port("api"), "/", *spoofed, ("x-api-key", key)).status == 400
    reply = get(envoy.port("bare"), "/", *spoofed, ("x-api-key", key))
    assert reply.status == 200
    assert b"evil" not in reply.body


def test_a_public_route_asks_for_no_key_and_still_believes_nobody(envoy: Envoy) -> None:
    reply = get(envoy.port(), "/healthz", *SPOOFED)
    assert reply.status == 200
    assert Seen.of(reply.body).identity == {}


def test_another_services_token_is_left_for_the_upstream(envoy: Envoy, key: str) -> None:
    token = "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.c2ln"
    seen = Seen.of(get(envoy.port(), "/", ("x-api-key", key), ("authorization", token)).body)
    assert list(seen.headers["authorization"]) == [token]
    seen = Seen.of(get(envoy.port(), "/", ("x-api-key", key), ("authorization", f"Bearer {key}")).body)
    assert "authorization" not in seen.headers


# Denied.


@pytest.mark.parametrize("listener", ["api", "raw", "bare"])
def test_a_request_without_a_usable_credential_is_denied(
    envoy: Envoy, made: pb.CreateKeyResponse, key: str, upstream: Upstream, listener: str
) -> None:
    port, before = envoy.port(listener), upstream.requests
    key_id, _, secret = key.partition(".")
    unknown = f"lg_0123456789abcdefghijkl.{secret}"
    assert_denied(get(port, "/"), 400, "MISSING_API_KEY")
    assert_denied(get(port, "/", ("x-api-key", "")), 400, "MISSING_API_KEY")
    assert_denied(get(port, "/", ("authorization", "Basic YTpi")), 400, "MISSING_API_KEY")
    assert_denied(get(port, "/", ("x-api-key", "nonsense")), 401, "INVALID_API_KEY")
    assert_denied(get(port, "/", ("x-api-key", unknown)), 401, "INVALID_API_KEY")
    assert_denied(get(port, "/", ("x-api-key", key_id)), 401, "SECRET_REQUIRED")
    assert_denied(get(port, "/", ("x-api-key", key[:-1] + ("0" if key[-1] != "0" else "1"))), 401, "INVALID_SECRET")
    assert upstream.requests == before


@pytest.mark.parametrize("reason", DENIED)
def test_a_key_that_may_not_be_used_is_denied(envoy: Envoy, house: House, reason: str) -> None:
    tenant_id = house.tenant()
    made = house.key(
        tenant_id,
        expire_time=datetime.now(UTC) + timedelta(hours=-1 if reason == "API_KEY_EXPIRED" else 1),
        ip_allowlist=key_pb2.IpAllowlist(enabled=reason == "IP_NOT_AUTHORIZED", ranges=["192.0.2.0/24"]),
    )
    if reason == "TENANT_DISABLED":
        house.root.DisableTenant(pb.DisableTenantRequest(tenant_id=tenant_id))
    if reason == "API_KEY_REVOKED":
        house.root.RevokeKey(pb.RevokeKeyRequest(key_id=made.key.key_id))
    if reason == "API_KEY_DISABLED":
        house.root.DisableKey(pb.DisableKeyRequest(key_id=made.key.key_id))
    assert_denied(get(envoy.port(), "/", ("x-api-key", made.key_string)), *DENIED[reason])


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/admin", 403, "INSUFFICIENT_PERMISSIONS"),
        ("/admin/users", 403, "INSUFFICIENT_PERMISSIONS"),
        ("//admin/", 403, "INSUFFICIENT_PERMISSIONS"),
        ("/x/../admin/", 403, "INSUFFICIENT_PERMISSIONS"),
        ("/%61dmin", 403, "INSUFFICIENT_PERMISSIONS"),
        ("/export", 200, ""),
        ("/import", 403, "CAPABILITY_NOT_IN_PLAN"),
        ("/of-another", 404, "NOT_FOUND"),
        ("/berlin", 200, ""),
        ("/paris", 404, "NOT_FOUND"),
        ("/misspelt", 500, "MISCONFIGURED"),
    ],
)
def test_a_route_requires_what_it_is_configured_to(envoy: Envoy, key: str, path: str, status: int, code: str) -> None:
    reply = get(envoy.port(), path, ("x-api-key", key))
    if code:
        assert_denied(reply, status, code)
    else:
        assert reply.status == status


def test_a_revocation_takes_effect_between_two_requests(envoy: Envoy, house: House) -> None:
    made = house.key()
    assert get(envoy.port(), "/", ("x-api-key", made.key_string)).status == 200
    house.root.RevokeKey(pb.RevokeKeyRequest(key_id=made.key.key_id))
    assert_denied(get(envoy.port(), "/", ("x-api-key", made.key_string)), 401, "API_KEY_DISABLED")


def test_limits_are_told_on_every_answer_and_a_limited_request_when_to_come_back(envoy: Envoy, house: House) -> None:
    tenant_id = house.tenant(
        limits=[key_pb2.Limit(name="all", quota=key_pb2.Quota(limit=3, period=key_pb2.Quota.PERIOD_DAY))]
    )
    rate = key_pb2.RateLimit(limit=2, period=Duration(seconds=600))
    made = house.key(tenant_id, limits=[key_pb2.Limit(name="requests", rate_limit=rate)])
    first, second, third = (get(envoy.port(), "/", ("x-api-key", made.key_string)) for _ in range(3))
    assert (first.status, second.status) == (200, 200)
    policy = '"requests";q=2;w=600, "tenant/all";q=3;w=86400'
    for remaining, reply in zip((1, 0, 0), (first, second, third), strict=True):
        assert reply.header("ratelimit-policy") == policy
        assert re.match(rf'"requests";r={remaining};t=\d+, "tenant/all";r=\d;t=\d+$', reply.header("ratelimit"))
    assert_denied(third, 429, "RATE_LIMITED")
    assert 0 < int(third.header("retry-after")) <= 300
    with pytest.raises(grpc.RpcError) as caught:
        called(envoy, ECHO_METHOD, ("x-api-key", made.key_string))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    spent = house.key(tenant_id)
    assert get(envoy.port(), "/", ("x-api-key", spent.key_string)).status == 200
    assert_denied(get(envoy.port(), "/", ("x-api-key", spent.key_string)), 429, "QUOTA_EXCEEDED")


def test_a_route_may_cost_more_or_nothing(envoy: Envoy, house: House) -> None:
    rate = key_pb2.RateLimit(limit=10, period=Duration(seconds=600))
    made = house.key(limits=[key_pb2.Limit(name="requests", rate_limit=rate)])
    credential = ("x-api-key", made.key_string)
    for path, remaining in (("/costs/7", 3), ("/costs/0", 3), ("/", 2)):
        assert get(envoy.port(), path, credential).header("ratelimit").startswith(f'"requests";r={remaining};')
    assert_denied(get(envoy.port(), "/costs/7", credential), 429, "RATE_LIMITED")


# Odd requests.


@pytest.mark.parametrize("listener", ["api", "raw", "bare"])
def test_several_keys_in_one_header_are_denied_unless_they_are_the_same(envoy: Envoy, key: str, listener: str) -> None:
    port = envoy.port(listener)
    for other in (key[:-1], "x", f"{key}, {key[:-1]}"):
        for pair in ((key, other), (other, key)):
            headers = [(name, value) for name, value in zip(("x-api-key", "X-API-KEY"), pair, strict=True)]
            assert_denied(get(port, "/", *headers), 400, "INVALID_API_KEY")
    assert get(port, "/", ("x-api-key", key), ("X-Api-Key", key)).status == 200
    authorization = [("authorization", f"Bearer {key}"), ("authorization", "Bearer x")]
    assert_denied(get(port, "/", *authorization), 400, "INVALID_API_KEY")


@pytest.mark.parametrize("listener", ["api", "raw", "bare"])
@pytest.mark.parametrize("value", [b"\xff\xfe", b"caf\xc3\xa9", b"\x80", b"a\tb", b'"', b"%0d%0aset-cookie: a=b"])
def test_odd_bytes_are_denied_and_never_repeated(envoy: Envoy, listener: str, value: bytes) -> None:
    reply = get(envoy.port(listener), "/", ("x-api-key", value))
    assert_denied(reply, 401, "INVALID_API_KEY")
    assert value not in reply.body or value == b'"'
    assert not reply.header("set-cookie")


@pytest.mark.parametrize("value", [b"a\rb", b"a\0b", b"a\x01b", b"a\nx-latchgate-tenant: evil"])
def test_control_characters_do_not_get_in(envoy: Envoy, key: str, value: bytes) -> None:
    reply = get(envoy.port(), "/", ("x-api-key", value))
    assert reply.status in {400, 401}
    reply = get(envoy.port(), "/", ("x-api-key", key), ("x-other", value))
    assert reply.status == 400 or Seen.of(reply.body).identity["tenant"] != "evil"


@pytest.mark.parametrize("path", [b"/\xff\xfe", b"/caf\xc3\xa9", b"/?\x80=\xff", b"/%ff%00", b"/%"])
def test_an_odd_path_is_no_error_of_ours(envoy: Envoy, key: str, path: bytes) -> None:
    for credential, expected in ((key.encode(), {200, 400}), (b"x", {401, 400})):
        message = b"GET " + path + b" HTTP/1.1\r\nhost: a\r\nx-api-key: " + credential + b"\r\n\r\n"
        for listener in ("api", "raw", "bare"):
            assert exchange(envoy.port(listener), message).status in expected


@pytest.mark.parametrize("length", [1_025, 20_000, 50_000])
def test_a_very_long_header_is_denied(envoy: Envoy, key: str, length: int) -> None:
    for listener in ("api", "raw", "bare"):
        assert_denied(get(envoy.port(listener), "/", ("x-api-key", "x" * length)), 401, "INVALID_API_KEY")
        assert get(envoy.port(listener), "/", ("x-api-key", key), ("x-other", "x" * length)).status == 200
    assert get(envoy.port(), "/", ("x-api-key", "x" * 70_000)).status == 431


# HTTP/2 and gRPC.


def test_http_2_is_the_same(envoy: Envoy, key: str) -> None:
    with httpx.Client(http1=False, http2=True, trust_env=False) as client:
        url = f"http://127.0.0.1:{envoy.port()}"
        allowed = client.get(f"{url}/orders", headers={"x-api-key": key, "x-latchgate-tenant": "evil"})
        assert (allowed.http_version, allowed.status_code) == ("HTTP/2", 200)
        assert Seen.of(allowed.content).identity["user"] == "ada"
        denied = client.get(f"{url}/admin", headers={"x-api-key": key})
        assert (denied.status_code, denied.json()["Code"]) == (403, "INSUFFICIENT_PERMISSIONS")
        twice = client.get(f"{url}/", headers=[("x-api-key", key), ("x-api-key", "x")])
        assert (twice.status_code, twice.json()["Code"]) == (400, "INVALID_API_KEY")
        assert client.get(f"{url}/").status_code == 400


def called(envoy: Envoy, method: str, *metadata: tuple[str, str]) -> Any:
    with grpc.insecure_channel(f"127.0.0.1:{envoy.port()}") as channel:
        call: Any = channel.unary_unary(method)
        return call(b"hello", metadata=metadata, timeout=20)


def test_a_grpc_upstream_sees_who_calls(envoy: Envoy, key: str, made: pb.CreateKeyResponse) -> None:
    spoofed = ("x-latchgate-tenant", "evil")
    seen = Seen.of(called(envoy, ECHO_METHOD, ("x-api-key", key), spoofed))
    assert seen.line == "hello"
    assert seen.identity["tenant"] == made.key.tenant_id
    assert "x-api-key" not in seen.headers


@pytest.mark.parametrize(
    ("method", "credential", "code", "told"),
    [
        (ECHO_METHOD, "", grpc.StatusCode.UNAUTHENTICATED, "MISSING_API_KEY: "),
        (ECHO_METHOD, "x", grpc.StatusCode.UNAUTHENTICATED, "INVALID_API_KEY: "),
        ("/test.Echo/Admin", "KEY", grpc.StatusCode.PERMISSION_DENIED, "INSUFFICIENT_PERMISSIONS: "),
        ("/paris", "KEY", grpc.StatusCode.NOT_FOUND, "NOT_FOUND: "),
    ],
)
def test_a_grpc_client_is_told_a_status_that_it_understands(
    envoy: Envoy, key: str, method: str, credential: str, code: grpc.StatusCode, told: str
) -> None:
    metadata = [("x-api-key", credential.replace("KEY", key))] if credential else []
    with pytest.raises(grpc.RpcError) as caught:
        called(envoy, method, *metadata)
    error: Any = caught.value
    assert error.code() == code
    assert error.details().startswith(told)
    assert "{" not in error.details()


# Other sources, addresses and words, as an operator configured them.


def test_other_sources_give_the_credential_and_are_taken_from_the_request(envoy: Envoy, other_house: House) -> None:
    key = other_house.key().key_string
    key_id, _, secret = key.partition(".")
    password = base64.b64encode(f"{key_id}:{secret}".encode()).decode()
    for path, headers in (
        ("/a?x=1&y=%20", [("authorization", f"Basic {password}")]),
        ("/a?x=1&y=%20", [("x-key-id", key_id), ("X-Key-Secret", secret)]),
        (f"/a?x=1&api_key={key}&y=%20", []),
        (f"/a?api%5Fkey={key}&x=1&y=%20", []),
        (f"/a?%61pi_key={key}&x=1&api_key={key}&y=%20&api%5fkey={key}", []),
        (f"/a?x=1&y=%20&api_key&api_key={key}", [("x-api-key", "unused")]),
    ):
        reply = get(envoy.port("other"), path, *headers)
        assert reply.status == 200, (path, reply)
        seen = Seen.of(reply.body)
        assert seen.line == "GET /a?x=1&y=%20 HTTP/1.1"
        assert seen.identity["key-id"] == key_id
        assert secret.encode() not in reply.body
        assert password.encode() not in reply.body


def test_uniform_denials_tell_nothing_but_invalid(envoy: Envoy, other_house: House) -> None:
    key, made = other_house.key().key_string, other_house.key()
    other_house.root.DisableKey(pb.DisableKeyRequest(key_id=made.key.key_id))
    bodies = set()
    for credential in ("x", key.partition(".")[0], key[:-1] + "_", made.key_string):
        reply = get(envoy.port("other"), "/", ("x-api-key", credential))
        assert reply.status == 401
        bodies.add(reply.body)
    assert [json.loads(body)["error"] for body in bodies] == ["INVALID_API_KEY"]
    assert get(envoy.port("other"), "/").status == 400


def test_an_operators_own_words_are_told(envoy: Envoy, other_house: House) -> None:
    made = other_house.key(ip_allowlist=key_pb2.IpAllowlist(enabled=True, ranges=["192.0.2.0/24"]))
    reply = get(envoy.port("other"), "/", ("x-api-key", made.key_string))
    assert (reply.status, reply.json) == (409, {"error": "elsewhere", "détail": "Not from here."})


# Where the client is.

PROXY_1 = b"PROXY TCP4 %s 127.0.0.1 4711 80\r\n"
LIES = [(name, "127.0.0.9") for name in ("x-client-ip", "X-Forwarded-For", "x-envoy-external-address", "x-real-ip")]


@pytest.fixture(scope="module")
def local_keys(house: House, other_house: House) -> Keys:
    """Keys for 127.0.0.9 alone, by the listener's first word."""
    allowlist = key_pb2.IpAllowlist(enabled=True, ranges=["127.0.0.9"])
    own, others = (str(one.key(ip_allowlist=allowlist).key_string) for one in (house, other_house))
    return {"api": own, "raw": own, "bare": own, "proxied": own, "other": others}


@pytest.mark.parametrize("listener", ["api", "raw", "bare", "proxied", "other"])
def test_the_client_is_who_is_connected_whatever_it_says(envoy: Envoy, local_keys: Keys, listener: str) -> None:
    local_key = local_keys[listener]
    status = 409 if listener == "other" else 403
    assert get(envoy.port(listener), "/", ("x-api-key", local_key), source="127.0.0.9").status == 200
    assert get(envoy.port(listener), "/", ("x-api-key", local_key), *LIES, *LIES).status == status
    assert get(envoy.port(listener), "/", ("x-api-key", local_key), *LIES, source="127.0.0.9").status == 200


def test_the_client_is_who_the_proxy_protocol_says(envoy: Envoy, local_keys: Keys) -> None:
    port, credential = envoy.port("proxied"), ("x-api-key", local_keys["proxied"])
    assert get(port, "/", credential, before=PROXY_1 % b"127.0.0.9").status == 200
    assert get(port, "/", credential, before=PROXY_1 % b"192.0.2.9", source="127.0.0.9").status == 403


def test_behind_a_proxy_the_trusted_header_has_the_client_that_envoy_vouches_for(
    envoy: Envoy, local_keys: Keys
) -> None:
    port, credential = envoy.port("other_hops"), ("x-api-key", local_keys["other"])
    assert get(port, "/", credential, ("x-forwarded-for", "198.51.100.1, 127.0.0.9")).status == 200
    assert get(port, "/", credential, ("x-forwarded-for", "127.0.0.9, 198.51.100.1")).status == 409
    assert get(port, "/", credential, ("x-forwarded-for", "127.0.0.9, 198.51.100.1"), *LIES[:1]).status == 409


def test_a_reply_never_holds_the_secret(envoy: Envoy, local_keys: Keys) -> None:
    reply = get(envoy.port(), "/", ("x-api-key", local_keys["api"]))
    assert reply.status == 403
    assert local_keys["api"].partition(".")[2] not in repr(reply)
