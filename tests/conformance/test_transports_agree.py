"""Nothing that a client can see differs between the transports: the same calls, malformed ones too, on both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2, tenant_pb2
from latchgate.v1.verify_service_pb2 import BatchVerifyRequest, VerifyRequest
from tests.support.server import ServerProcess

VERIFY = "/latchgate.v1.VerifyService/Verify"
BATCH = "/latchgate.v1.VerifyService/BatchVerify"
ADMIN = "/latchgate.v1.AdminService/"
HEALTH = "/grpc.health.v1.Health/Check"
TRANSPORTS = ("native", "grpcio")
# What no two calls share.
UNIQUE_TO_A_RUN = frozenset({"date"})


@dataclass(frozen=True)
class Call:
    """A unary call, of bytes."""

    path: str
    request: bytes = b""
    metadata: Sequence[tuple[str, str | bytes]] = ()
    timeout: float = 20.0
    options: Sequence[tuple[str, Any]] = ()
    compression: grpc.Compression | None = None


@dataclass(frozen=True)
class Seen:
    """All that a client sees of it."""

    code: grpc.StatusCode
    details: str
    response: bytes = b""
    initial: Mapping[str, str | bytes] = field(default_factory=dict)
    trailing: Mapping[str, str | bytes] = field(default_factory=dict)


def verify(**fields: Any) -> bytes:
    return VerifyRequest(**fields).SerializeToString()


def as_root(root_key: str, method: str, request: Any) -> Call:
    return Call(ADMIN + method, request.SerializeToString(), [("authorization", f"Bearer {root_key}")])


MALFORMED = {
    "an unknown method": Call("/latchgate.v1.VerifyService/Nothing"),
    "an unknown service": Call("/latchgate.v1.NoService/Verify"),
    "a path of one part": Call("/Verify"),
    "an unknown method of health": Call("/grpc.health.v1.Health/Nothing"),
    "a service that health does not know": Call(HEALTH, b"\x0a\x04none"),
    "a message that does not parse": Call(VERIFY, b"\x0a\xff"),
    "a message with an unknown field": Call(VERIFY, b"\xfa\x7f\x03abc"),
    "text that is no UTF-8": Call(VERIFY, b"\x0a\x02\xff\xfe"),
    "an empty message": Call(VERIFY),
    "a message above the limit": Call(VERIFY, b"\x0a\x80\x80\x80\x04" + bytes(4 * 1024 * 1024 * 2), timeout=40.0),
    "no authorization": Call(ADMIN + "ListTenants"),
    "an authorization of another scheme": Call(ADMIN + "ListTenants", metadata=[("authorization", "Basic abc")]),
    "an empty authorization": Call(ADMIN + "ListTenants", metadata=[("authorization", "")]),
    "two authorizations": Call(ADMIN + "ListTenants", metadata=[("authorization", "Bearer a")] * 2),
    "an unknown administrator": Call(ADMIN + "ListTenants", metadata=[("authorization", "Bearer lg_a.b")]),
    "a message of an administrator that does not parse": Call(ADMIN + "ListTenants", b"\x0a\xff"),
    "a requirement that does not parse": Call(VERIFY, verify(key="a.b", required_permissions="a AND")),
    "a negative cost": Call(VERIFY, verify(key="a.b", cost=-1)),
    "several wrong fields": Call(VERIFY, verify(key="a.b", cost=-1, act_as="\n", resource="x" * 501)),
    "a revision beyond the database's": Call(VERIFY, verify(key="a.b", at_least_revision=-5)),
    "too large a batch": Call(BATCH, BatchVerifyRequest(requests=[VerifyRequest()] * 1_001).SerializeToString()),
    "a batch with wrong entries": Call(
        BATCH, BatchVerifyRequest(requests=[VerifyRequest(key="a.b", cost=-1), VerifyRequest()]).SerializeToString()
    ),
    "a malformed credential": Call(VERIFY, verify(key="\0")),
    "a compressed request": Call(VERIFY, verify(key="a.b" * 200), compression=grpc.Compression.Gzip),
    "binary metadata": Call(VERIFY, verify(key="a.b"), metadata=[("x-some-bin", b"\0\xff")]),
    "much metadata": Call(VERIFY, verify(key="a.b"), metadata=[("x-long", "x" * 8_000)]),
    "no message": Call(BATCH),
}
REFUSED_BY_ADMIN: Mapping[str, tuple[str, Any]] = {
    "what does not exist": ("GetTenant", pb.GetTenantRequest(tenant_id="nobody")),
    "what exists": ("CreateTenant", pb.CreateTenantRequest(tenant=tenant_pb2.Tenant(tenant_id="latchgate"))),
    "a field out of bounds": ("CreateTenant", pb.CreateTenantRequest(tenant=tenant_pb2.Tenant(tenant_id="No!"))),
    "many fields out of bounds": (
        "CreateKey",
        pb.CreateKeyRequest(key=key_pb2.Key(tenant_id="a", role_ids=["!"] * 20, permissions=["!"] * 20)),
    ),
    "an etag of before": (
        "UpdateTenant",
        pb.UpdateTenantRequest(tenant=tenant_pb2.Tenant(tenant_id="latchgate", display_name="x", etag="0")),
    ),
    "a page token of nobody's": ("ListTenants", pb.ListTenantsRequest(page_token="abc")),
    "what is in use": ("DeleteTenant", pb.DeleteTenantRequest(tenant_id="latchgate")),
}


@pytest.fixture(scope="module")
def channels(module_database: str, root_key: str) -> Iterator[Mapping[str, Mapping[str, grpc.Channel]]]:
    """To both ports of a server on each transport, on one database."""
    servers = [ServerProcess(module_database, {"transport": transport}) for transport in TRANSPORTS]
    try:
        for server in servers:
            server.start()
        made = {
            transport: {
                port: grpc.insecure_channel(address, [("grpc.max_send_message_length", -1)])
                for port, address in (("verify", server.verify_address), ("admin", server.admin_address))
            }
            for transport, server in zip(TRANSPORTS, servers, strict=True)
        }
        yield made
        for ports in made.values():
            for channel in ports.values():
                channel.close()
    finally:
        for server in servers:
            server.stop()


def seen(channels: Mapping[str, grpc.Channel], call: Call) -> Seen:
    channel = channels["admin" if call.path.startswith(ADMIN) else "verify"]
    method: Any = channel.unary_unary(call.path)
    metadata = [*call.metadata, ("x-request-id", "the-same")]
    future = method.future(call.request, call.timeout, metadata, compression=call.compression)
    error = future.exception()
    return Seen(
        future.code(),
        future.details(),
        b"" if error else future.result(),
        _plain(future.initial_metadata()),
        _plain(future.trailing_metadata()),
    )


def _plain(metadata: Any) -> Mapping[str, str | bytes]:
    return {name: value for name, value in metadata or () if name not in UNIQUE_TO_A_RUN}


def both(channels: Mapping[str, Mapping[str, grpc.Channel]], call: Call) -> tuple[Seen, Seen]:
    native, grpcio = (seen(channels[transport], call) for transport in TRANSPORTS)
    return native, grpcio


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_call_ends_alike(channels: Mapping[str, Mapping[str, grpc.Channel]], name: str) -> None:
    native, grpcio = both(channels, MALFORMED[name])

    assert native == grpcio


@pytest.mark.parametrize("name", REFUSED_BY_ADMIN)
def test_an_error_of_the_control_plane_is_told_alike(
    channels: Mapping[str, Mapping[str, grpc.Channel]], root_key: str, name: str
) -> None:
    native, grpcio = both(channels, as_root(root_key, *REFUSED_BY_ADMIN[name]))

    assert native.code is not grpc.StatusCode.OK
    assert native == grpcio


def test_an_answer_is_the_same_byte_for_byte(channels: Mapping[str, Mapping[str, grpc.Channel]], root_key: str) -> None:
    for call in (
        Call(VERIFY, verify(key=root_key, required_permissions="latchgate.keys.create")),
        Call(VERIFY, verify(key=root_key, required_permissions="a.b AND NOT a.b")),
        Call(HEALTH),
        as_root(root_key, "GetTenant", pb.GetTenantRequest(tenant_id="latchgate")),
    ):
        native, grpcio = both(channels, call)

        assert native.code is grpc.StatusCode.OK
        assert native.response
        assert native == grpcio


def test_native_takes_gzip_alone_and_says_so(channels: Mapping[str, Mapping[str, grpc.Channel]]) -> None:
    """A difference that is known, in docs/performance.md."""
    native, grpcio = both(channels, Call(VERIFY, verify(key="a.b" * 200), compression=grpc.Compression.Deflate))

    assert (native.code, grpcio.code) == (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.OK)
    assert "deflate" in native.details


def test_metadata_above_the_limit_is_refused_by_native_in_terms_of_http(
    channels: Mapping[str, Mapping[str, grpc.Channel]],
) -> None:
    """The other difference that is known: native refuses before it knows that the call is one of gRPC's."""
    call = Call(VERIFY, verify(key="a.b"), metadata=[(f"x-{number}", "x" * 1_000) for number in range(60)])
    native, grpcio = both(channels, call)

    assert (native.code, grpcio.code) == (grpc.StatusCode.UNKNOWN, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert "431" in native.details
