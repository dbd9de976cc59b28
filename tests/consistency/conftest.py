"""A replica on a database of the file's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import tenant_pb2
from tests.consistency.replicas import Replica, serving
from tests.support.postgres import Postgres
from tests.support.server import make_root_key


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> str:
    return postgres.new_database()


@pytest.fixture(scope="module")
def root_key(database: str) -> str:
    return make_root_key(database)


@pytest.fixture(scope="module")
def steady(database: str, root_key: str) -> Iterator[Replica]:
    with serving(database, root_key) as replica:
        replica.admin.CreateTenant(pb.CreateTenantRequest(tenant=tenant_pb2.Tenant(tenant_id="acme")))
        yield replica
