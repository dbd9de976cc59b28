"""A replica on a database of the file's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import tenant_pb2
from tests.consistency.replicas import Replica, serving


@pytest.fixture(scope="module")
def steady(module_database: str, root_key: str) -> Iterator[Replica]:
    with serving(module_database, root_key) as replica:
        replica.admin.CreateTenant(pb.CreateTenantRequest(tenant=tenant_pb2.Tenant(tenant_id="acme")))
        yield replica
