"""What is fuzzed: a running server with a little in it, two administrators, and what may never be told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from latchgate.v1 import admin_service_pb2 as pb
from tests.conformance.house import ROOT_TENANT, House
from tests.conformance.wire import Refusal, refusal_of
from tests.support.server import Admin, ServerProcess

SECRET = re.compile(r"\.([0-9A-Za-z]{49})")

ORDERLY = {
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAUTHENTICATED,
}
"""How a call may end beside OK. INTERNAL, UNKNOWN and a deadline that passes are findings."""


@dataclass
class World:
    """A server and what there is in it.

    secrets: of every key that was ever made here. key_string: of a key that works.
    """

    server: ServerProcess
    root_key: str
    secrets: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.keep(self.root_key)
        self.root = Admin(self.server.admin_address, self.root_key)
        self.house = House(self.root)
        self.victims: list[str] = []
        self._furnish()

    def close(self) -> None:
        """Close the channel."""
        self.root.close()

    def keep(self, key_string: str) -> str:
        """Note a key's secret, and return the key string."""
        self.secrets.add(key_string.partition(".")[2])
        return key_string

    def caller(self, name: str) -> Admin:
        """`root`, or `tenant`: an administrator of one tenant who holds all there is to hold there."""
        return self.root if name == "root" else self.tenant_admin

    def renew(self) -> None:
        """After the tenant's administrator was shut out, or the whole tenant deleted, as happens here."""
        try:
            self.root.EnableTenant(pb.EnableTenantRequest(tenant_id=self.tenant_id))
        except grpc.RpcError:
            self._furnish()
        else:
            self.tenant_admin = self._hire()

    def words(self) -> dict[str, Sequence[str]]:
        """What fields of a name may plausibly hold."""
        tenants = [self.tenant_id, "victim", ""]
        keys = [*self.victims[-3:], "lg_0000000000000000000000"]
        return {
            "tenant_id": tenants,
            "plan_id": [self.plan_id, "victim", ""],
            "role_id": [self.role_id, "victim"],
            "role_ids": [self.role_id, "victim"],
            "key_id": keys,
            "key_ids": keys,
            "key_strings": ["lg_0000000000000000000000." + "0" * 49, "x"],
            "permissions": ["orders.read", "orders.*", "latchgate.keys.get", "*"],
            "ranges": ["192.0.2.0/24", "2001:db8::1"],
            "resources": ["sites/berlin/*"],
            "paths": ["display_name", "permissions", "tenant_id", "claims", "limits", "expire_time", "etag", "*"],
            "name": ["requests", "calls"],
            "search": ["a", "_", "%"],
            "phc": ["$argon2id$v=19$m=16,t=2,p=1$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdA"],
        }

    def _furnish(self) -> None:
        self.plan_id = self.house.plan()
        self.tenant_id = self.house.tenant(plan_id=self.plan_id)
        self.role_id = self.house.role(self.tenant_id, permissions=["orders.*"])
        made = self.house.key(self.tenant_id, permissions=["orders.read"], role_ids=[self.role_id])
        self.key_id, self.key_string = made.key.key_id, self.keep(made.key_string)
        self.tenant_admin = self._hire()

    def _hire(self) -> Admin:
        made = self.house.key(self.tenant_id, permissions=["latchgate.*", "*"])
        return self.house.caller(self.keep(made.key_string))


def spared(request: Any) -> Any:
    """The request, but for what would end the first administrator: nobody could go on after that."""
    if isinstance(request, pb.BatchRevokeKeysRequest):
        request.filter.tenant_id = "victim"
    for name in ("tenant_id", "key_id"):
        if name in request.DESCRIPTOR.fields_by_name and getattr(request, name) == ROOT_TENANT:
            setattr(request, name, "victim")
    return request


def ended(call: Any) -> tuple[Any, Refusal | None]:
    """The response of a call, or how it was refused."""
    try:
        return call(), None
    except grpc.RpcError as error:
        return None, refusal_of(error)


def told(*texts: object) -> Sequence[str]:
    """Every whole secret in what was told."""
    return [secret for text in texts for secret in SECRET.findall(str(text))]
