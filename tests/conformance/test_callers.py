"""LATCHGATE_VERIFY_AUTH=key: nobody asks for a decision without a key that has `latchgate.verify`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import decision_pb2
from latchgate.v1.verify_service_pb2 import BatchVerifyRequest, VerifyRequest
from latchgate_server.transport.ext_authz import SERVICE as AUTHORIZATION_SERVICE
from latchgate_server.transport.server import VERIFY_SERVICE
from tests.conformance.house import House
from tests.conformance.test_error_reasons import assert_as_documented
from tests.conformance.test_usage import counted, eventually
from tests.conformance.wire import Refusal, refusal
from tests.support.check import Check, request
from tests.support.server import Admin, ServerProcess, Verify, run_command
from tests.support.server import environment as process_environment

TRANSPORTS = ("native", "grpcio")
Metadata = tuple[tuple[str, str | bytes], ...]


@pytest.fixture(scope="module")
def server(module_database: str, transport: str) -> Iterator[ServerProcess]:
    settings = {"transport": transport, "verify_auth": "key", "log_level": "debug"}
    with ServerProcess(module_database, settings) as process:
        yield process


@pytest.fixture(scope="module")
def caller(house: House) -> pb.CreateKeyResponse:
    """The key of a backend that may ask."""
    return house.key(permissions=["latchgate.verify"])


@pytest.fixture(scope="module")
def asked(house: House) -> str:
    """A key that is asked about."""
    return house.key(permissions=["orders.read"]).key_string


@pytest.fixture(scope="module")
def check(server: ServerProcess) -> Iterator[Check]:
    stub = Check(server.verify_address)
    yield stub
    stub.close()


def bearer(key_string: str) -> Metadata:
    return (("authorization", f"Bearer {key_string}"),)


def methods(verify: Verify, asked: str) -> Sequence[Callable[[Metadata], Any]]:
    """Both ways to ask."""
    batch = BatchVerifyRequest(requests=[VerifyRequest(key=asked)])
    return (
        lambda metadata: verify.stub.Verify(VerifyRequest(key=asked), metadata=metadata, timeout=20).decision,
        lambda metadata: verify.stub.BatchVerify(batch, metadata=metadata, timeout=20).responses[0].decision,
    )


def test_a_caller_with_the_permission_is_answered(
    verify: Verify, caller: pb.CreateKeyResponse, asked: str, house: House
) -> None:
    wider = house.key("latchgate", permissions=["latchgate.*"])
    for key in (caller, wider):
        for ask in methods(verify, asked):
            for _ in range(2):  # first from the database, then from memory
                assert ask(bearer(key.key_string)) == decision_pb2.DECISION_ALLOW
    assert methods(verify, asked)[0]((("authorization", f"bEARER {caller.key_string}"),)) == decision_pb2.DECISION_ALLOW


@pytest.mark.parametrize(
    ("case", "denial_reason"),
    [
        ("nothing", "MISSING_API_KEY"),
        ("an empty key", "MISSING_API_KEY"),
        ("another scheme", "INVALID_API_KEY"),
        ("two keys", "INVALID_API_KEY"),
        ("garbage", "INVALID_API_KEY"),
        ("a key id alone", "SECRET_REQUIRED"),
        ("a wrong secret", "INVALID_SECRET"),
        ("another place", "IP_NOT_AUTHORIZED"),
        ("disabled", "API_KEY_DISABLED"),
    ],
)
def test_nobody_else_is(
    verify: Verify, caller: pb.CreateKeyResponse, asked: str, house: House, case: str, denial_reason: str
) -> None:
    key_string = caller.key_string
    metadata: Metadata = {
        "nothing": (),
        "an empty key": bearer(""),
        "another scheme": (("authorization", f"Basic {key_string}"),),
        "two keys": bearer(key_string) * 2,
        "garbage": bearer("garbage"),
        "a key id alone": bearer(caller.key.key_id),
        "a wrong secret": bearer(f"{caller.key.key_id}.{asked.partition('.')[2]}"),
        "another place": (),
        "disabled": (),
    }[case]
    if case == "another place":
        ranges = {"enabled": True, "ranges": ["192.0.2.1"]}
        metadata = bearer(house.key(permissions=["latchgate.verify"], ip_allowlist=ranges).key_string)
    if case == "disabled":
        disabled = house.key(permissions=["latchgate.verify"])
        metadata = bearer(disabled.key_string)
        methods(verify, asked)[0](metadata)
        house.root.DisableKey(pb.DisableKeyRequest(key_id=disabled.key.key_id))
    for ask in methods(verify, asked):
        for _ in range(2):
            refused = refusal(ask, metadata)
            assert_as_documented(refused, "CALLER_KEY_REJECTED")
            assert refused.metadata == {"denial_reason": denial_reason}


@pytest.mark.parametrize("permissions", [[], ["*"], ["latchgate.watch"], ["latchgate.keys.*"], ["orders.verify"]])
def test_a_key_without_the_permission_is_told_which_it_lacks(
    verify: Verify, asked: str, house: House, permissions: list[str]
) -> None:
    key_string = house.key(permissions=permissions).key_string
    for ask in methods(verify, asked):
        for _ in range(2):
            refused: Refusal = refusal(ask, bearer(key_string))
            assert_as_documented(refused, "PERMISSION_MISSING")
            assert refused.metadata == {"permission": "latchgate.verify"}


def test_a_caller_whose_key_was_revoked_is_refused_from_the_moment_that_the_revocation_returned(
    verify: Verify, asked: str, house: House
) -> None:
    key = house.key(permissions=["latchgate.verify"])
    ask = methods(verify, asked)[0]
    for _ in range(3):
        assert ask(bearer(key.key_string)) == decision_pb2.DECISION_ALLOW
    house.root.RevokeKey(pb.RevokeKeyRequest(key_id=key.key.key_id))
    assert refusal(ask, bearer(key.key_string)).metadata == {"denial_reason": "API_KEY_REVOKED"}


def test_limits_of_the_callers_own_key_are_not_charged(verify: Verify, asked: str, house: House) -> None:
    limits = [{"name": "calls", "rate_limit": {"limit": 1, "period": {"seconds": 60}}}]
    key = house.key(permissions=["latchgate.verify"], limits=limits)
    for _ in range(5):
        assert methods(verify, asked)[0](bearer(key.key_string)) == decision_pb2.DECISION_ALLOW


def test_each_call_counts_once_for_its_caller_and_once_for_who_is_asked_about(
    verify: Verify, check: Check, house: House
) -> None:
    """Whether memory answers, or the database, or nobody can."""
    caller, tenant = house.key(permissions=["latchgate.verify"]), house.tenant()
    metadata = bearer(caller.key_string)
    keys = [house.key(tenant, permissions=["orders.read"]) for _ in range(4)]
    for key in keys[:2]:
        for _ in range(3):  # first from the database, then from memory
            verify.stub.Verify(VerifyRequest(key=key.key_string), metadata=metadata, timeout=20)
    for key in keys[2:]:
        for _ in range(3):
            check.ask(request({"x-api-key": key.key_string}), metadata=metadata)
    methods(verify, keys[0].key_string)[1](metadata)
    malformed = VerifyRequest(key=keys[0].key_string, required_permissions="(")
    assert refusal(lambda: verify.stub.Verify(malformed, metadata=metadata, timeout=20)).code.name == "INVALID_ARGUMENT"
    verify.stub.Verify(VerifyRequest(key="garbage"), metadata=metadata, timeout=20)

    eventually(lambda: counted(house.root, tenant_id=tenant), (13, {}))
    eventually(lambda: counted(house.root, key_id=caller.key.key_id), (15, {}))


def test_so_does_each_call_of_a_caller_that_is_refused(verify: Verify, check: Check, house: House) -> None:
    stranger, tenant = house.key(), house.tenant()
    key_string = house.key(tenant).key_string
    for _ in range(3):
        refusal(lambda: verify.stub.Verify(VerifyRequest(key=key_string), metadata=bearer(stranger.key_string)))
        check.ask(request({"x-api-key": key_string}), metadata=bearer(stranger.key_string))
    eventually(lambda: counted(house.root, key_id=stranger.key.key_id), (0, {"INSUFFICIENT_PERMISSIONS": 6}))
    assert counted(house.root, tenant_id=tenant) == (0, {})


# Envoy.


def test_envoy_asks_with_a_key_of_its_own(check: Check, caller: pb.CreateKeyResponse, asked: str) -> None:
    for _ in range(2):
        assert check.ask(request({"x-api-key": asked}), metadata=bearer(caller.key_string)).allowed
        denied = check.ask(request({"x-api-key": "garbage"}), metadata=bearer(caller.key_string))
        assert denied.http == 401


def test_an_envoy_without_one_lets_nobody_in_and_learns_nothing(check: Check, house: House, asked: str) -> None:
    """Not by an RPC error: an Envoy that fails open would let the request in."""
    stranger = house.key().key_string
    answers = [
        check.ask(request({"x-api-key": key}), metadata=metadata)
        for key in (asked, "garbage")
        for metadata in ((), bearer(stranger), bearer("garbage"))
    ]
    assert {answer.kind for answer in answers} == {"denied_response"}
    assert {(answer.http, answer.body) for answer in answers} == {
        (500, '{"Code": "MISCONFIGURED", "Message": "This route is not configured correctly."}')
    }
    assert not any(answer.metadata for answer in answers)
    grpc_request = request({"x-api-key": asked, "content-type": "application/grpc"})
    assert check.ask(grpc_request).body.startswith("MISCONFIGURED: ")


def test_what_a_rejected_caller_asks_is_not_looked_at(check: Check, verify: Verify, house: House) -> None:
    """Neither does it take anything from a limit."""
    caller = house.key(permissions=["latchgate.verify"])
    limits = [{"name": "calls", "rate_limit": {"limit": 1, "period": {"seconds": 600}}}]
    key_string = house.key(limits=limits).key_string
    for _ in range(3):
        refusal(verify, key_string)
        check.ask(request({"x-api-key": key_string}))
    response = verify.stub.Verify(VerifyRequest(key=key_string), metadata=bearer(caller.key_string), timeout=20)
    assert response.decision == decision_pb2.DECISION_ALLOW


# What stays open, and what is kept.


def test_health_and_reflection_ask_for_no_key(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.verify_address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", VERIFY_SERVICE, AUTHORIZATION_SERVICE):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert VERIFY_SERVICE in ProtoReflectionDescriptorDatabase(channel).get_services()


def test_the_log_names_who_was_rejected_and_no_secret(
    server: ServerProcess, root: Admin, caller: pb.CreateKeyResponse, asked: str
) -> None:
    log = "".join(server.log)
    assert '"event": "caller_rejected"' in log
    assert '"client_ip": "127.0.0.1"' in log
    for key_string in (caller.key_string, asked):
        secret = key_string.partition(".")[2]
        assert secret[: len(secret) // 2] not in log
        assert secret[len(secret) // 2 :] not in log


def test_the_command_line_asks_with_the_key_that_it_is_given(
    server: ServerProcess, caller: pb.CreateKeyResponse, asked: str, tmp_path: Path
) -> None:
    def ask(**settings: str) -> tuple[int, str]:
        env = process_environment("", verify_address=server.verify_address, **settings)
        done = run_command("verify", "-", env=env, stdin=asked)
        return done.returncode, done.stderr or done.stdout

    file = tmp_path / "caller.key"
    file.write_text(f"{caller.key_string}\n")
    code, told = ask(verify_key_file=str(file))
    assert (code, told.split()[:2]) == (0, ["decision", "allow"])
    code, told = ask()
    assert (code, told) == (
        1,
        (
            "latchgate: the caller's own key was rejected: MISSING_API_KEY; send one as `authorization: Bearer KEY`; "
            "LATCHGATE_VERIFY_KEY or LATCHGATE_VERIFY_KEY_FILE is where `latchgate` takes it from\n"
        ),
    )
