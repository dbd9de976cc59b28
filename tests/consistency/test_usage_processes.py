"""Usage through the ends of processes and of the database: exact where all ends in good order, never much late."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2, tenant_pb2
from latchgate.v1.decision_pb2 import DECISION_ALLOW
from latchgate.v1.verify_service_pb2 import BatchVerifyRequest, RequestInfo, VerifyRequest
from tests.support.fault_proxy import FaultProxy
from tests.support.postgres import Postgres
from tests.support.server import Admin, ServerProcess, Verify, make_root_key
from tests.support.waiting import wait_until

LEASE = "1s"
WRITTEN_SECONDS = 1.0 + 9.0
"""How late usage may be in the database: a second, and what a busy machine adds."""


@dataclass
class Deployment:
    url: str
    root_key: str

    def value(self, statement: str, *arguments: object) -> Any:
        async def ask() -> Any:
            connection = await asyncpg.connect(self.url)
            try:
                return await connection.fetchval(statement, *arguments)
            finally:
                await connection.close()

        return asyncio.run(ask())

    def counted(self, key_id: str) -> int:
        return int(
            self.value(
                "SELECT coalesce(sum(u.count), 0) FROM key_usage AS u JOIN keys AS k ON k.number = u.key_number"
                " WHERE k.key_id = $1 AND u.outcome = 0",
                key_id,
            )
        )

    def rows_of_processes(self) -> set[str]:
        """What the database knows of processes: those that serve, and those that write usage."""
        both = "SELECT replica_id AS id FROM replicas UNION ALL SELECT writer_id FROM usage_writers"
        return set(self.value(f"SELECT array_agg(id) FROM ({both}) AS ids") or ())

    def wait_until_counted(self, key_id: str, uses: int) -> None:
        """All that a live server was asked is in the database within a second."""
        wait_until(lambda: self.counted(key_id) == uses, WRITTEN_SECONDS)


@pytest.fixture(scope="module")
def deployment(postgres: Postgres) -> Deployment:
    url = postgres.new_database()
    return Deployment(url, make_root_key(url))


@pytest.fixture(scope="module")
def lasting(deployment: Deployment) -> Iterator[ServerProcess]:
    """A server that no test ends."""
    with ServerProcess(deployment.url, {"lease": LEASE}) as process:
        yield process


@pytest.fixture
def key(deployment: Deployment, lasting: ServerProcess) -> pb.CreateKeyResponse:
    return make_key(deployment, lasting)


def make_key(deployment: Deployment, process: ServerProcess) -> pb.CreateKeyResponse:
    """A key of a tenant of its own."""
    admin = Admin(process.admin_address, deployment.root_key)
    tenant_id = f"usage-{time.monotonic_ns()}"
    admin.CreateTenant(pb.CreateTenantRequest(tenant=tenant_pb2.Tenant(tenant_id=tenant_id)))
    made: pb.CreateKeyResponse = admin.CreateKey(pb.CreateKeyRequest(key=key_pb2.Key(tenant_id=tenant_id)))
    admin.close()
    return made


def use(process: ServerProcess, key_string: str, calls: int) -> None:
    """Verify so often, some one by one and some in batches, from many addresses; all must be allowed."""
    verify = Verify(process.verify_address)
    one = [VerifyRequest(key=key_string, client_ip=f"10.0.{number}.1") for number in range(50)]
    left = calls
    while left:
        several = min(left, len(one))
        responses = verify.stub.BatchVerify(BatchVerifyRequest(requests=one[:several]), timeout=20).responses
        assert all(response.decision == DECISION_ALLOW for response in responses)
        left -= several
    verify.close()


def test_an_orderly_stop_loses_nothing_across_processes(deployment: Deployment) -> None:
    before = deployment.rows_of_processes()
    settings = {"lease": LEASE}
    with ServerProcess(deployment.url, settings) as first, ServerProcess(deployment.url, settings) as second:
        key = make_key(deployment, first)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda process: use(process, key.key_string, 2_345), (first, second)))
        # At once, so that what was not written yet is written by the stop.
        assert second.stop() == 0
        assert first.stop() == 0
    assert deployment.counted(key.key.key_id) == 2 * 2_345
    tenant = (
        "SELECT sum(u.count)::bigint FROM tenant_usage AS u JOIN tenants AS t ON t.number = u.tenant_number"
        " WHERE t.tenant_id = $1"
    )
    assert deployment.value(tenant, key.key.tenant_id) == 2 * 2_345
    sources = (
        "SELECT sum(s.count)::bigint FROM key_sources AS s JOIN keys AS k ON k.number = s.key_number"
        " WHERE k.key_id = $1"
    )
    assert deployment.value(sources, key.key.key_id) == 2 * 2_345
    assert deployment.rows_of_processes() <= before


def test_a_crash_loses_no_more_than_the_last_second(deployment: Deployment, key: pb.CreateKeyResponse) -> None:
    with ServerProcess(deployment.url, {"lease": LEASE}) as process:
        use(process, key.key_string, 500)
        deployment.wait_until_counted(key.key.key_id, 500)
        use(process, key.key_string, 100)
        process.kill()
    assert 500 <= deployment.counted(key.key.key_id) <= 600


def test_decisions_go_on_while_the_database_is_away_and_their_counters_arrive_later(deployment: Deployment) -> None:
    with FaultProxy(deployment.url) as proxy:
        settings = {"lease": LEASE, "on_database_loss": "serve_cached"}
        with ServerProcess(proxy.url, settings) as process:
            admin = Admin(process.admin_address, deployment.root_key)
            made = admin.CreateKey(pb.CreateKeyRequest(key=key_pb2.Key(tenant_id="latchgate")))
            use(process, made.key_string, 100)
            deployment.wait_until_counted(made.key.key_id, 100)
            proxy.refuse()
            proxy.drop()
            gone_at, calls = time.monotonic(), 0
            # For longer than the lease, and until it has tried to write them.
            while time.monotonic() < gone_at + 2.0 or not any("usage_delayed" in line for line in process.log):
                assert time.monotonic() < gone_at + 30
                use(process, made.key_string, 50)
                calls += 50
                time.sleep(0.05)
            assert deployment.counted(made.key.key_id) == 100
            proxy.restore()
            process.wait_for("usage_caught_up")
            wait_until(lambda: deployment.counted(made.key.key_id) == 100 + calls)
            use(process, made.key_string, 7)
            admin.close()
            assert process.stop() == 0
    assert deployment.counted(made.key.key_id) == 100 + calls + 7


def test_the_last_use_is_found_with_the_key_by_every_process(
    deployment: Deployment, lasting: ServerProcess, key: pb.CreateKeyResponse
) -> None:
    with ServerProcess(deployment.url, {"lease": LEASE}) as second:
        use(second, key.key_string, 3)
        admin = Admin(lasting.admin_address, deployment.root_key)
        start = Timestamp()
        start.FromDatetime(datetime.now(UTC) - timedelta(hours=1))
        request = pb.GetUsageRequest(key_id=key.key.key_id, start_time=start, bucket_length=Duration(seconds=3_600))
        wait_until(lambda: sum(bucket.allowed for bucket in admin.GetUsage(request).buckets) == 3, WRITTEN_SECONDS)
        assert admin.GetKey(pb.GetKeyRequest(key_id=key.key.key_id)).key.last_use.client_ip == "10.0.2.1"
        admin.close()


def test_usage_takes_no_revision_and_waits_for_no_change(
    deployment: Deployment, lasting: ServerProcess, key: pb.CreateKeyResponse
) -> None:
    async def hold() -> tuple[int, int, int]:
        """Count while a change holds the clock and the key's row."""
        connection = await asyncpg.connect(deployment.url)
        try:
            before = await connection.fetchval("SELECT revision FROM revision_clock")
            async with connection.transaction():
                await connection.execute("SELECT latchgate_begin_change()")
                await connection.execute("UPDATE keys SET description = 'held' WHERE key_id = $1", key.key.key_id)
                await asyncio.to_thread(use, lasting, key.key_string, 50)
                await asyncio.to_thread(deployment.wait_until_counted, key.key.key_id, 51)
                raise _RolledBackError(before, 51)
        except _RolledBackError as error:
            after = await connection.fetchval("SELECT revision FROM revision_clock")
            return error.before, error.counted, after
        finally:
            await connection.close()

    def deployment_count() -> int:
        return deployment.counted(key.key.key_id)

    use(lasting, key.key_string, 1)  # into memory
    before, counted, after = asyncio.run(hold())
    assert counted >= 50
    assert after == before


class _RolledBackError(Exception):
    def __init__(self, before: int, counted: int) -> None:
        super().__init__()
        self.before, self.counted = before, counted


def test_the_access_log_has_a_line_for_each_decision_and_no_secret(deployment: Deployment) -> None:
    with ServerProcess(deployment.url, {"lease": LEASE, "access_log": "1"}) as process:
        admin = Admin(process.admin_address, deployment.root_key)
        made = admin.CreateKey(pb.CreateKeyRequest(key=key_pb2.Key(tenant_id="latchgate", owner="ann")))
        verify = Verify(process.verify_address)
        told = RequestInfo(method="GET", host="api.example.com", path=f"/a/{made.key_string}?key={made.key_string}")
        verify(made.key_string, client_ip="203.0.113.9", request=told, resource="sites/berlin")
        verify(f"{made.key.key_id}.wrong", client_ip="203.0.113.9")
        verify("nonsense")
        process.stop()
        admin.close()
        verify.close()
        lines = [json.loads(line) for line in process.log if '"event": "decision"' in line]
    of_key = [line for line in lines if line["key_id"] == made.key.key_id]
    assert [(line["decision"], line["denial_reason"]) for line in of_key] == [("ALLOW", ""), ("DENY", "INVALID_SECRET")]
    first = of_key[0]
    assert (first["tenant_id"], first["user"], first["client_ip"]) == ("latchgate", "ann", "203.0.113.9")
    assert (first["method"], first["host"], first["resource"]) == ("GET", "api.example.com", "sites/berlin")
    assert [line["denial_reason"] for line in lines if not line["key_id"]] == ["INVALID_API_KEY"]
    secret = made.key_string.partition(".")[2]
    assert not any(secret in line for line in process.log)


def test_the_access_log_takes_the_share_that_is_asked_for(deployment: Deployment) -> None:
    with ServerProcess(deployment.url, {"lease": LEASE, "access_log": "0.1"}) as process:
        admin = Admin(process.admin_address, deployment.root_key)
        made = admin.CreateKey(pb.CreateKeyRequest(key=key_pb2.Key(tenant_id="latchgate")))
        admin.close()
        use(process, made.key_string, 1_000)
        process.stop()
        assert 99 <= sum('"event": "decision"' in line for line in process.log) <= 101


@pytest.fixture
def quiet(deployment: Deployment) -> Iterator[ServerProcess]:
    """A server that has logged nothing: of each kind of event no more than some are, in ten seconds."""
    with ServerProcess(deployment.url, {"lease": LEASE}) as process:
        yield process


def test_what_stands_out_is_logged(deployment: Deployment, quiet: ServerProcess) -> None:
    key = make_key(deployment, quiet)
    verify = Verify(quiet.verify_address)
    key_id = key.key.key_id
    verify(key.key_string, client_ip="198.51.100.1")
    deployment.wait_until_counted(key_id, 1)
    deployment.value(
        "UPDATE key_last_uses SET time = now() - interval '31 days'"
        " WHERE key_number = (SELECT number FROM keys WHERE key_id = $1) RETURNING 1",
        key_id,
    )
    verify(key.key_string, client_ip="198.51.100.2")
    told = {event: quiet.wait_for(event) for event in ("new_source", "dormant_key_used")}
    assert {event["key_id"] for event in told.values()} == {key_id}
    assert told["new_source"]["client_ip"] == "198.51.100.2"
    for _ in range(30):
        verify(f"{key_id}.{'x' * 49}", client_ip="203.0.113.9")
    burst = quiet.wait_for("wrong_secret_burst")
    assert (burst["key_id"], burst["client_ip"], burst["wrong_secrets"]) == (key_id, "203.0.113.9", 20)
    verify.close()
