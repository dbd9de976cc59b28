"""Replicas as processes, asked and told what their callers and administrators ask and tell them.

Leases are of one second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2
from latchgate.v1.decision_pb2 import DECISION_ALLOW
from latchgate.v1.verify_service_pb2 import VerifyRequest, VerifyResponse
from latchgate.v1.verify_service_pb2_grpc import VerifyServiceStub
from tests.support.server import Admin, ServerProcess

LEASE = 1.0
LEASE_AND_MARGIN = LEASE * 1.1
TOLERANCE = 1.5
"""Seconds that a busy machine may add to what the protocol says."""
VERIFY_SERVICE = "latchgate.v1.VerifyService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass(frozen=True)
class Replica:
    """A server with its stubs. Every Verify opens a connection of its own, which any of its workers may get."""

    process: ServerProcess
    admin: Admin

    def verify(self, key_string: str, timeout: float = 5.0) -> VerifyResponse:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(self.process.verify_address, options=options) as channel:
            response: VerifyResponse = VerifyServiceStub(channel).Verify(
                VerifyRequest(key=key_string), timeout=timeout, wait_for_ready=False
            )
            return response

    def allows(self, key_string: str) -> bool:
        """Whether it says ALLOW; an error is no ALLOW."""
        try:
            return self.verify(key_string).decision == DECISION_ALLOW
        except grpc.RpcError:
            return False

    def health(self, service: str) -> int:
        with grpc.insecure_channel(self.process.verify_address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            return int(stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status)

    def logged(self, event: str) -> int:
        """How often it has logged the event."""
        return sum(f'"event": "{event}"' in line for line in self.process.log)


@contextmanager
def serving(database_url: str, root_key: str, **settings: str) -> Iterator[Replica]:
    with ServerProcess(database_url, {"lease": "1s", **settings}) as process:
        admin = Admin(process.admin_address, root_key)
        yield Replica(process, admin)
        admin.close()


@dataclass(frozen=True)
class NewKey:
    key_id: str
    key_string: str


def make_key(replica: Replica, tenant_id: str = "acme") -> NewKey:
    made = replica.admin.CreateKey(pb.CreateKeyRequest(key=key_pb2.Key(tenant_id=tenant_id)))
    return NewKey(made.key.key_id, made.key_string)


def revoke(replica: Replica, key: NewKey) -> tuple[pb.Propagation, float]:
    """Revoke a key; what it took."""
    began = time.monotonic()
    propagation = replica.admin.RevokeKey(pb.RevokeKeyRequest(key_id=key.key_id)).propagation
    return propagation, time.monotonic() - began


def fetch(database_url: str, statement: str) -> Any:
    """The value that a statement returns."""

    async def run() -> Any:
        connection = await asyncpg.connect(database_url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(run())


@contextmanager
def psql(database_url: str) -> Iterator[Callable[[str], None]]:
    """A session in which statements are run one by one, as somebody types them."""
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(database_url))

        def run(statement: str) -> None:
            runner.run(connection.execute(statement))

        yield run
        connection.terminate()


def processes(database_url: str) -> set[str]:
    """The processes that the database knows of: those that run, and crashed ones that nobody has forgotten yet."""
    return set(fetch(database_url, "SELECT array_agg(replica_id) FROM replicas") or ())
