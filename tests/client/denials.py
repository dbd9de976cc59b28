"""Every denial there is, as requests that meet it, for whatever protects a service with Latchgate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2
from tests.conformance.house import House

PEER = "192.0.2.7"
"""Where requests come from."""


class Denied(NamedTuple):
    """A request that is denied. place: what it is for: `orders`, `export`, `sites/paris` or `tenants/other`."""

    name: str
    place: str
    key: str
    status: int
    code: str


def every_denial(house: House) -> Iterator[Denied]:
    """The requests, each with a key of its own."""
    key = house.key(permissions=["orders.read"])
    key_id, _, secret = key.key_string.partition(".")
    yield Denied("no key", "orders", "", 400, "MISSING_API_KEY")
    yield Denied("nonsense", "orders", "nonsense", 401, "INVALID_API_KEY")
    yield Denied("a key id alone", "orders", key_id, 401, "SECRET_REQUIRED")
    yield Denied("a wrong secret", "orders", f"{key_id}.{secret[:-1]}-", 401, "INVALID_SECRET")
    yield Denied("two keys", "orders", f"{key.key_string},nonsense", 400, "INVALID_API_KEY")
    other = house.key(permissions=["orders.list"]).key_string
    yield Denied("another permission", "orders", other, 403, "INSUFFICIENT_PERMISSIONS")
    yield Denied("another tenant's", "tenants/other", key.key_string, 404, "NOT_FOUND")
    yield from _ended(house)
    yield from _limited(house)


def _ended(house: House) -> Iterator[Denied]:
    root = house.root
    disabled, revoked, expired, orphan = (house.key(permissions=["orders.read"]) for _ in range(4))
    root.DisableKey(pb.DisableKeyRequest(key_id=disabled.key.key_id))
    root.RevokeKey(pb.RevokeKeyRequest(key_id=revoked.key.key_id))
    root.ExpireKey(pb.ExpireKeyRequest(key_id=expired.key.key_id))
    root.DisableTenant(pb.DisableTenantRequest(tenant_id=orphan.key.tenant_id))
    yield Denied("a disabled key", "orders", disabled.key_string, 401, "API_KEY_DISABLED")
    yield Denied("a revoked key", "orders", revoked.key_string, 401, "API_KEY_DISABLED")
    yield Denied("an expired key", "orders", expired.key_string, 401, "API_KEY_EXPIRED")
    yield Denied("a disabled tenant", "orders", orphan.key_string, 401, "COMPANY_API_DISABLED")


def _limited(house: House) -> Iterator[Denied]:
    rights = ["orders.read", "orders.export"]
    elsewhere = house.key(
        permissions=rights, ip_allowlist=key_pb2.IpAllowlist(enabled=True, ranges=["198.51.100.0/24"])
    )
    nothing = key_pb2.Limit(name="calls", quota=key_pb2.Quota(limit=0, period=key_pb2.Quota.PERIOD_DAY))
    spent = house.key(permissions=rights, limits=[nothing])
    berlin = house.key(permissions=rights, resources=["sites/berlin"])
    yield Denied("another address", "orders", elsewhere.key_string, 403, "IP_NOT_AUTHORIZED")
    yield Denied("a plan without it", "export", house.key(permissions=rights).key_string, 403, "CAPABILITY_NOT_IN_PLAN")
    yield Denied("another site", "sites/paris", berlin.key_string, 404, "NOT_FOUND")
    yield Denied("no quota", "orders", spent.key_string, 429, "QUOTA_EXCEEDED")
