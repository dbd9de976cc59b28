"""What a collector of traces receives over OTLP, from a server on either transport, and what happens without one."""

from __future__ import annotations

import itertools
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any

import grpc
import pytest

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1.admin_service_pb2_grpc import AdminServiceStub
from latchgate.v1.verify_service_pb2 import BatchVerifyRequest, VerifyRequest
from latchgate_server.spans import SpanName, TraceAttribute
from tests.conformance.house import House
from tests.support.check import METHOD, request
from tests.support.collector import Collector, Received, collecting
from tests.support.server import ServerProcess, Verify

TRANSPORTS = ["native", "grpcio"]
SERVER_SPAN = 2
VERIFY, BATCH = "latchgate.v1.VerifyService/Verify", "latchgate.v1.VerifyService/BatchVerify"
CHECK = "envoy.service.auth.v3.Authorization/Check"
_numbers = itertools.count(1)


class Caller:
    """A service that takes part in a trace."""

    def __init__(self, flags: str = "01") -> None:
        self.trace_id, self.span_id = f"{next(_numbers):032x}", f"{next(_numbers):016x}"
        self.metadata = (("traceparent", f"00-{self.trace_id}-{self.span_id}-{flags}"),)

    def verify(self, verify: Verify, key: str, **fields: Any) -> Any:
        return verify.stub.Verify(VerifyRequest(key=key, **fields), metadata=self.metadata, timeout=20)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture(scope="module")
def server(module_database: str, root_key: str, transport: str, collector: Collector) -> Iterator[ServerProcess]:
    """A server that sends what it has every 50 milliseconds; at the end nothing that left it may hold a secret."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        patch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=tests")
        with ServerProcess(module_database, {"transport": transport}) as process:
            yield process
    told = b"".join(collector.bodies)
    assert root_key.partition(".")[2].encode() not in told


def has(*names: str) -> Callable[[Set[str]], bool]:
    return lambda found: found >= set(names)


def below(parent: Received, *children: Received) -> bool:
    return all(child.parent_id == parent.span_id for child in children)


def test_a_first_verification_is_told_with_its_parts(collector: Collector, house: House, verify: Verify) -> None:
    made = house.key()
    caller = Caller()
    caller.verify(verify, made.key_string)
    spans = collector.of_trace(caller.trace_id, has(VERIFY, SpanName.READ_RECORD, SpanName.HASH_SECRET))
    call = spans[VERIFY]
    assert (call.kind, call.parent_id, call.is_error) == (SERVER_SPAN, caller.span_id, False)
    revision = call.attributes[TraceAttribute.REVISION]
    assert revision >= made.propagation.revision
    assert call.attributes == {
        "rpc.system": "grpc",
        "rpc.service": "latchgate.v1.VerifyService",
        "rpc.method": "Verify",
        "rpc.grpc.status_code": 0,
        "latchgate.decision": "ALLOW",
        "latchgate.key_id": made.key.key_id,
        "latchgate.tenant_id": made.key.tenant_id,
        "latchgate.revision": revision,
        "latchgate.stale": False,
    }
    assert below(call, spans[SpanName.READ_RECORD], spans[SpanName.HASH_SECRET])
    assert made.key_string.partition(".")[2].encode() not in b"".join(collector.bodies)


def test_the_data_plane_makes_spans_for_callers_that_sample_alone(
    collector: Collector, house: House, verify: Verify
) -> None:
    key = house.key().key_string
    verify(key)
    unsampled, sampled = Caller(flags="00"), Caller()
    verify(key)
    unsampled.verify(verify, key)
    sampled.verify(verify, key)
    assert set(collector.of_trace(sampled.trace_id, has(VERIFY))) == {VERIFY}, "from memory, so without parts"
    assert not any(span.trace_id == unsampled.trace_id for span in collector.spans)
    assert all(span.parent_id for span in collector.spans if span.name == VERIFY)


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "nonsense",
        f"00-{'0' * 32}-{'1' * 16}-01",
        f"00-{'1' * 32}-{'0' * 16}-01",
        f"00-{'1' * 32}-{'1' * 16}-01-more",
        f"ff-{'1' * 32}-{'1' * 16}-01",
    ],
)
def test_a_malformed_parent_changes_no_decision(house: House, verify: Verify, sent: str) -> None:
    asked = VerifyRequest(key=house.key().key_string)
    assert verify.stub.Verify(asked, metadata=(("traceparent", sent),), timeout=20).decision == 1


def test_a_denial_is_no_error_and_tells_no_key_that_was_not_proven(
    collector: Collector, house: House, verify: Verify
) -> None:
    key = house.key().key_string
    caller = Caller()
    caller.verify(verify, key[:-1] + ("a" if key[-1] != "a" else "b"))
    call = collector.of_trace(caller.trace_id, has(VERIFY))[VERIFY]
    assert not call.is_error
    assert call.attributes["latchgate.decision"] == "DENY"
    assert call.attributes["latchgate.denial_reason"] == "INVALID_SECRET"
    assert "latchgate.key_id" not in call.attributes


def test_a_callers_mistake_has_a_code_and_a_request_id(collector: Collector, house: House, verify: Verify) -> None:
    caller = Caller()
    with pytest.raises(grpc.RpcError) as caught:
        caller.verify(verify, house.key().key_string, cost=-1)
    call = collector.of_trace(caller.trace_id, has(VERIFY))[VERIFY]
    assert call.attributes["rpc.grpc.status_code"] == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert not call.is_error
    error: Any = caught.value
    told = dict(error.trailing_metadata())
    assert told["x-request-id"] == call.attributes["latchgate.request_id"]


def test_batches_and_envoys_checks_are_part_of_a_trace(
    collector: Collector, house: House, verify: Verify, server: ServerProcess
) -> None:
    key = house.key().key_string
    batch, check = Caller(), Caller()
    entries = [VerifyRequest(key=key), VerifyRequest(key="x")]
    verify.stub.BatchVerify(BatchVerifyRequest(requests=entries), metadata=batch.metadata, timeout=20)
    with grpc.insecure_channel(server.verify_address) as channel:
        call: Any = channel.unary_unary(METHOD, type(request()).SerializeToString, bytes)
        call(request({"x-api-key": key}), metadata=check.metadata, timeout=20)
    span = collector.of_trace(batch.trace_id, has(BATCH))[BATCH]
    assert "latchgate.decision" not in span.attributes, "it made two, and they differ"
    span = collector.of_trace(check.trace_id, has(CHECK))[CHECK]
    assert (span.parent_id, span.attributes["latchgate.decision"]) == (check.span_id, "ALLOW")


def test_a_change_is_told_with_its_parts_and_ties_the_log_to_the_trace(
    collector: Collector, house: House, server: ServerProcess, root_key: str
) -> None:
    made = house.key()
    caller = Caller()
    metadata = (("authorization", f"Bearer {root_key}"), ("x-request-id", f"of-{caller.trace_id}"), *caller.metadata)
    with grpc.insecure_channel(server.admin_address) as channel:
        rotate = pb.RotateKeyRequest(key_id=made.key.key_id)
        rotated = AdminServiceStub(channel).RotateKey(rotate, metadata=metadata, timeout=20)
    name = "latchgate.v1.AdminService/RotateKey"
    parts = (SpanName.CHANGE, SpanName.WAIT_FOR_REPLICAS, SpanName.HASH_SECRET)
    spans = collector.of_trace(caller.trace_id, has(name, *parts))
    call = spans[name]
    assert (call.kind, call.parent_id) == (SERVER_SPAN, caller.span_id)
    assert call.attributes["latchgate.caller"] == root_key.partition(".")[0]
    assert call.attributes["latchgate.request_id"] == f"of-{caller.trace_id}"
    assert below(call, spans[SpanName.CHANGE], spans[SpanName.WAIT_FOR_REPLICAS])
    waited = spans[SpanName.WAIT_FOR_REPLICAS].attributes
    assert waited == {
        "latchgate.revision": rotated.propagation.revision,
        "latchgate.replicas_confirmed": 1,
        "latchgate.leases_expired": 0,
    }
    assert rotated.key_string.partition(".")[2].encode() not in b"".join(collector.bodies)
    deadline = time.monotonic() + 10
    while not (lines := [line for line in list(server.log) if f"of-{caller.trace_id}" in line]):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert json.loads(lines[0])["trace_id"] == caller.trace_id


def test_a_call_of_an_administrator_begins_a_trace_of_its_own(collector: Collector, house: House) -> None:
    house.root.ListPlans(pb.ListPlansRequest())
    name = "latchgate.v1.AdminService/ListPlans"
    deadline = time.monotonic() + 15
    while not any(span.name == name and not span.parent_id for span in list(collector.spans)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_only_declared_names_are_told_and_nothing_that_an_error_says(collector: Collector, house: House) -> None:
    with pytest.raises(grpc.RpcError):
        house.root.GetTenant(pb.GetTenantRequest(tenant_id="nobody-knows-me"))
    house.root.ListRoles(pb.ListRolesRequest())
    deadline = time.monotonic() + 15
    while not any(span.name.endswith("ListRoles") for span in list(collector.spans)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    parts, attributes = {name.value for name in SpanName}, {name.value for name in TraceAttribute}
    for span in collector.spans:
        assert span.name in parts or span.kind == SERVER_SPAN
        assert set(span.attributes) <= attributes
        assert (span.events, span.status_message) == (0, "")
    assert b"nobody-knows-me" not in b"".join(collector.bodies)


def test_a_process_says_who_it_is(collector: Collector, server: ServerProcess, house: House) -> None:
    house.tenant()
    deadline = time.monotonic() + 15
    while not collector.resources:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for resource in collector.resources:
        assert resource["service.name"] == "latchgate"
        assert resource["deployment.environment.name"] == "tests"
        assert len(resource["service.instance.id"]) == 32


def serve_traced(url: str, endpoint: str, work: Callable[[ServerProcess], object], **more: str) -> tuple[float, int]:
    """Serve with traces to an endpoint, do some work, and end; tells how long the end took, and the exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint)
        for name, value in more.items():
            patch.setenv(name, value)
        with ServerProcess(url, {}) as server:
            work(server)
            began = time.monotonic()
            server.signal(signal.SIGTERM)
            code = server._process.wait(30)
            return time.monotonic() - began, code


def traced_call(server: ServerProcess) -> Mapping[str, str]:
    caller, stub = Caller(), Verify(server.verify_address)
    caller.verify(stub, "lg_nonsense.x")
    stub.close()
    return {"trace_id": caller.trace_id}


def test_what_waits_is_sent_before_a_process_ends(deployment: Any) -> None:
    with collecting() as collector:
        seconds, code = serve_traced(
            deployment.database_url, f"{collector.endpoint}/v1/traces", traced_call, OTEL_BSP_SCHEDULE_DELAY="600000"
        )
    assert [span.name for span in collector.spans] == [VERIFY]
    assert (code, seconds < 10) == (0, True)


def test_a_collector_that_never_answers_holds_nothing_up(deployment: Any) -> None:
    def work(server: ServerProcess) -> None:
        stub = Verify(server.verify_address)
        # Far more than the queue holds.
        for caller in [Caller() for _ in range(200)]:
            began = time.monotonic()
            caller.verify(stub, "lg_nonsense.x")
            assert time.monotonic() - began < 5
        stub.close()
        assert not any('"level": "error"' in line for line in server.log)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces"
        settings = {
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_BSP_MAX_QUEUE_SIZE": "32",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8",
        }
        seconds, code = serve_traced(deployment.database_url, endpoint, work, **settings)
    assert code == 0
    assert seconds < 12, "two seconds for what waits, and what else a process has to do"
