"""What /metrics tells of calls that were just made, on both transports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import grpc
import pytest

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1.verify_service_pb2 import BatchVerifyRequest, VerifyRequest
from tests.conformance.house import House
from tests.conformance.test_usage import eventually
from tests.support.check import Check
from tests.support.server import Admin, ServerProcess, Verify
from tests.support.waiting import wait_until

TRANSPORTS = ["native", "grpcio"]


class Metrics:
    """The samples that a server shows, and how they grow."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._before = self()

    def __call__(self) -> Mapping[str, float]:
        return self._server.metrics()

    def growth(self, sample: str) -> float:
        return self._growths(sample)[sample]

    def assert_growth(self, expected: Mapping[str, float]) -> None:
        """That these samples grow by so much, and no more. Waits: some calls are counted once their answer has left."""
        eventually(lambda: self._growths(*expected), expected)
        assert self._growths(*expected) == expected, "they go on growing"

    def _growths(self, *samples: str) -> dict[str, float]:
        now = self()
        names = {sample: f"latchgate_{sample}" for sample in samples}
        return {sample: now.get(name, 0.0) - self._before.get(name, 0.0) for sample, name in names.items()}


@pytest.fixture
def metrics(server: ServerProcess, root: Admin) -> Metrics:
    """From now on; with the root key in memory."""
    before = Metrics(server)
    root.ListTenants(pb.ListTenantsRequest())
    before.assert_growth({'admin_seconds_count{method="ListTenants"}': 1})
    return Metrics(server)


@pytest.fixture
def check(server: ServerProcess) -> Iterator[Check]:
    stub = Check(server.verify_address)
    yield stub
    stub.close()


def test_each_call_counts_once_in_the_latency_of_its_method(
    house: House, verify: Verify, check: Check, metrics: Metrics
) -> None:
    key = house.key().key_string
    for _ in range(5):
        verify(key)  # the first asks the database, the others memory alone
    verify.stub.BatchVerify(BatchVerifyRequest(requests=[VerifyRequest(key=key)] * 3), timeout=20)
    check({"x-api-key": key})
    metrics.assert_growth(
        {
            'verify_seconds_count{method="Verify"}': 5,
            'verify_seconds_bucket{le="+Inf",method="Verify"}': 5,
            'verify_seconds_count{method="BatchVerify"}': 1,
            'verify_seconds_count{method="Check"}': 1,
            'decisions_total{decision="ALLOW",denial_reason=""}': 9,
        }
    )
    assert 0 < metrics.growth('verify_seconds_sum{method="Verify"}') < 20


def test_an_error_has_a_latency_as_well(verify: Verify, metrics: Metrics) -> None:
    with pytest.raises(grpc.RpcError):
        verify("lg_x.y", required_permissions="(")
    metrics.assert_growth({'verify_seconds_count{method="Verify"}': 1, 'undecided_total{code="INVALID_ARGUMENT"}': 1})


def test_administrators_calls_are_counted_and_timed_by_method(root: Admin, metrics: Metrics) -> None:
    root.ListTenants(pb.ListTenantsRequest())
    with pytest.raises(grpc.RpcError):
        root.GetTenant(pb.GetTenantRequest(tenant_id="nobody"))
    metrics.assert_growth(
        {
            'admin_seconds_count{method="ListTenants"}': 1,
            'admin_calls_total{code="OK",method="ListTenants"}': 1,
            'admin_seconds_count{method="GetTenant"}': 1,
            'admin_calls_total{code="NOT_FOUND",method="GetTenant"}': 1,
        }
    )


def test_memory_tells_hits_from_misses_and_why_records_left(house: House, verify: Verify, metrics: Metrics) -> None:
    key = house.key()
    verify(key.key_string)
    assert metrics.growth('cache_lookups_total{outcome="miss"}') == 1
    assert metrics.growth("record_load_seconds_count") == 1
    assert metrics.growth("hash_seconds_count") == 2, "the making of the key, and its first use"
    hits = metrics.growth('cache_lookups_total{outcome="hit"}')
    verify(key.key_string)
    assert metrics.growth('cache_lookups_total{outcome="hit"}') == hits + 1
    assert metrics.growth('cache_lookups_total{outcome="miss"}') == 1
    house.root.DisableKey(pb.DisableKeyRequest(key_id=key.key.key_id))
    assert metrics.growth('cache_evictions_total{cause="change"}') == 1
    assert metrics.growth('cache_evictions_total{cause="size"}') == 0


def test_gauges_tell_how_the_process_stands(house: House, verify: Verify, metrics: Metrics) -> None:
    made = house.key()
    verify(made.key_string)
    revision = made.propagation.revision
    wait_until(lambda: metrics()["latchgate_applied_revision"] >= revision, 10.0)
    shown = metrics()
    assert shown["latchgate_lease_valid"] == 1
    assert shown["latchgate_limit_store_up"] == 1
    assert shown["latchgate_replicas"] == 1
    assert 0 <= shown["latchgate_beat_age_seconds"] < 20
    assert shown["latchgate_cache_capacity"] == 200_000
    assert shown["latchgate_hashes_waiting"] == 0
    for pool in ("control", "loads", "usage"):
        opened = sum(
            shown[f'latchgate_pool_connections{{pool="{pool}",state="{state}"}}'] for state in ("busy", "idle")
        )
        assert 1 <= opened <= shown[f'latchgate_pool_capacity{{pool="{pool}"}}']
