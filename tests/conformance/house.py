"""Tenants, plans, roles, keys and administrators in one line each, so that a test reads as what it shows."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import grpc

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2, tenant_pb2
from tests.conformance.wire import refusal_of
from tests.support.server import Admin

ROOT_TENANT = "latchgate"

_ATTEMPTS = 10
_PAUSE_SECONDS = 0.3

_numbers = itertools.count(1)


class House:
    """Makes what a test needs as the first administrator, under ids that no other test has."""

    def __init__(self, root: Admin) -> None:
        self.root = root

    def fresh_id(self, prefix: str) -> str:
        """An id that is not taken."""
        return f"{prefix}-{next(_numbers)}"

    def tenant(self, **fields: Any) -> str:
        """A tenant; its id."""
        fields.setdefault("tenant_id", self.fresh_id("tenant"))
        return str(
            _ask(self.root.CreateTenant, pb.CreateTenantRequest(tenant=tenant_pb2.Tenant(**fields))).tenant.tenant_id
        )

    def plan(self, **fields: Any) -> str:
        """A plan; its id."""
        fields.setdefault("plan_id", self.fresh_id("plan"))
        return str(_ask(self.root.CreatePlan, pb.CreatePlanRequest(plan=tenant_pb2.Plan(**fields))).plan.plan_id)

    def role(self, tenant_id: str = "", **fields: Any) -> str:
        """A role of the tenant, or of every tenant; its id."""
        fields.setdefault("role_id", self.fresh_id("role"))
        role = tenant_pb2.Role(tenant_id=tenant_id, **fields)
        return str(_ask(self.root.CreateRole, pb.CreateRoleRequest(role=role)).role.role_id)

    def key(self, tenant_id: str = "", **fields: Any) -> pb.CreateKeyResponse:
        """A key of the tenant, or of a new one, with its key string."""
        key = key_pb2.Key(tenant_id=tenant_id or self.tenant(), **fields)
        response: pb.CreateKeyResponse = _ask(self.root.CreateKey, pb.CreateKeyRequest(key=key))
        return response

    def admin(self, tenant_id: str, *permissions: str, **fields: Any) -> Admin:
        """An administrator of the tenant who holds these permissions."""
        return self.caller(self.key(tenant_id, permissions=permissions, **fields).key_string)

    def caller(self, key_string: str, *metadata: tuple[str, str]) -> Admin:
        """AdminService with this key."""
        return _AnotherAdmin(self.root, key_string, *metadata)


class _AnotherAdmin(Admin):
    """An administrator who shares another one's channel."""

    def __init__(self, other: Admin, key_string: str, *metadata: tuple[str, str]) -> None:
        self._stub = other._stub
        self._metadata = [("authorization", f"Bearer {key_string}"), *metadata]

    def close(self) -> None:
        """The channel is the other one's to close."""


def _ask(method: Callable[[Any], Any], request: Any) -> Any:
    """What the call answers; as clients are told to, it is made again where the database was only busy.

    With the short leases of tests, that is when a machine that runs many of them stands still for half a second.
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            return method(request)
        except grpc.RpcError as error:
            if refusal_of(error).reason != "OVERLOADED":
                raise
            time.sleep(_PAUSE_SECONDS)
    return method(request)
