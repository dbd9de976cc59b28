"""The decision about a proven key: which check denies it, and which of several is the reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import combinations

import pytest

from latchgate_server.core.model import (
    DenialReason,
    HashProfile,
    Key,
    KeyState,
    Plan,
    Question,
    Role,
    SecretHash,
    Tenant,
)
from latchgate_server.core.permissions import parse_requirement
from latchgate_server.core.policy import CHECKS, decide
from latchgate_server.core.record import Record, build_record

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SECRET = SecretHash(profile=HashProfile.GENERATED, pepper_id="1", phc="", tag=None)


@dataclass(frozen=True)
class Case:
    """A key with what it depends on, and what is asked of it."""

    key: Key
    tenant: Tenant
    role: Role
    question: Question

    def record(self) -> Record:
        plan = Plan(plan_id="gold", capabilities=("export",))
        roles = [(1, self.role)]
        return build_record(key=self.key, secret=SECRET, tenant=self.tenant, plan=plan, roles=roles, revision=1)

    def decided(self, now: float = NOW.timestamp()) -> DenialReason | None:
        return decide(self.record(), self.question, now)

    def failed_checks(self, now: float = NOW.timestamp()) -> list[DenialReason]:
        record = self.record()
        return [check.denial_reason for check in CHECKS if not check.passes(record, self.question, now)]

    def with_key(self, **changes: object) -> Case:
        return replace(self, key=replace(self.key, **changes))  # type: ignore[arg-type]  # names are checked when run

    def asking(self, **changes: object) -> Case:
        asked = {name: getattr(self.question, name) for name in Question.__slots__}
        return replace(self, question=Question(**{**asked, **changes}))


# A key under every restriction there is, asked for something of every kind, all of which it may do.
ALLOWED = Case(
    key=Key(
        key_id="lg_1",
        tenant_id="acme",
        owner="ada",
        ip_allowlist_enabled=True,
        ip_allowlist=("192.0.2.0/24",),
        resources=("sites/berlin/*",),
        expire_time=NOW + timedelta(hours=1),
        permissions=("orders.*",),
    ),
    tenant=Tenant(tenant_id="acme"),
    role=Role(role_id="clerk"),
    question=Question(
        client_ip="192.0.2.7",
        tenant_id="acme",
        requirement=parse_requirement("orders.read AND NOT stock.read"),
        capability="export",
        act_as="ada",
        resource="sites/berlin/orders",
    ),
)

FAILURES: dict[DenialReason, Callable[[Case], Case]] = {
    DenialReason.TENANT_DISABLED: lambda case: replace(case, tenant=replace(case.tenant, enabled=False)),
    DenialReason.API_KEY_REVOKED: lambda case: case.with_key(state=KeyState.REVOKED),
    DenialReason.API_KEY_DISABLED: lambda case: case.with_key(state=KeyState.DISABLED),
    DenialReason.API_KEY_EXPIRED: lambda case: case.with_key(expire_time=NOW - timedelta(hours=1)),
    DenialReason.IP_NOT_AUTHORIZED: lambda case: case.asking(client_ip="198.51.100.7"),
    DenialReason.TENANT_MISMATCH: lambda case: case.asking(tenant_id="other"),
    DenialReason.RESOURCE_NOT_IN_SCOPE: lambda case: case.asking(resource="sites/paris/orders"),
    DenialReason.CAPABILITY_NOT_IN_PLAN: lambda case: case.asking(capability="import"),
    DenialReason.INSUFFICIENT_PERMISSIONS: lambda case: case.asking(requirement=parse_requirement("stock.read")),
    DenialReason.ACT_AS_NOT_ALLOWED: lambda case: case.asking(act_as="bob"),
}


def _failing(reasons: Iterable[DenialReason]) -> Case:
    case = ALLOWED
    for reason in reasons:
        case = FAILURES[reason](case)
    return case


# Which reason is told.


def test_a_key_that_passes_every_check_is_allowed() -> None:
    assert ALLOWED.decided() is None
    assert ALLOWED.failed_checks() == []


def test_every_check_is_tried_below_and_all_stand_in_the_order_of_their_numbers() -> None:
    assert [check.denial_reason for check in CHECKS] == sorted(FAILURES)


@pytest.mark.parametrize("reason", FAILURES, ids=lambda reason: reason.name)
def test_a_check_that_fails_alone_is_the_reason(reason: DenialReason) -> None:
    assert _failing([reason]).decided() is reason


@pytest.mark.parametrize("number", range(2, len(FAILURES)))
def test_of_several_failures_the_lowest_numbered_is_the_reason(number: int) -> None:
    """Every combination; but a key is in one state only, so it is never both revoked and disabled."""
    for reasons in combinations(FAILURES, number):
        if not {DenialReason.API_KEY_REVOKED, DenialReason.API_KEY_DISABLED} <= set(reasons):
            case = _failing(reasons)
            assert case.decided() is min(reasons), reasons
            assert case.failed_checks()[0] is min(reasons), "whoever explains the decision is told the same"


def test_what_is_not_asked_for_is_not_checked() -> None:
    assert replace(ALLOWED, question=Question(client_ip="192.0.2.7")).decided() is None


# Expiry.


def test_a_key_is_expired_from_its_expire_time_on_and_not_before() -> None:
    expire_at = NOW.timestamp() + 3_600
    assert ALLOWED.decided(math.nextafter(expire_at, 0)) is None
    assert ALLOWED.decided(expire_at) is DenialReason.API_KEY_EXPIRED


@pytest.mark.parametrize("now", [0.0, 1.0, NOW.timestamp()])
def test_a_key_whose_expiry_is_stored_is_expired_by_any_clock(now: float) -> None:
    assert ALLOWED.with_key(expired=True).decided(now) is DenialReason.API_KEY_EXPIRED


def test_a_key_without_expire_time_never_expires() -> None:
    assert ALLOWED.with_key(expire_time=None).decided(1e12) is None


# The IP allowlist.


@pytest.mark.parametrize("client_ip", ["", "localhost", "192.0.2.7:80", "192.0.2.07", "192.0.2.7\0", "192.0.2.7" * 99])
def test_a_missing_or_malformed_client_address_is_denied_where_an_allowlist_applies(client_ip: str) -> None:
    assert ALLOWED.asking(client_ip=client_ip).decided() is DenialReason.IP_NOT_AUTHORIZED


@pytest.mark.parametrize("client_ip", ["", "198.51.100.7", "localhost"])
def test_an_empty_allowlist_does_not_apply(client_ip: str) -> None:
    assert ALLOWED.with_key(ip_allowlist=()).asking(client_ip=client_ip).decided() is None


@pytest.mark.parametrize("client_ip", ["", "198.51.100.7", "localhost"])
def test_an_allowlist_that_is_switched_off_does_not_apply(client_ip: str) -> None:
    assert ALLOWED.with_key(ip_allowlist_enabled=False).asking(client_ip=client_ip).decided() is None


def test_an_ipv4_client_is_the_same_in_its_mapped_form() -> None:
    assert ALLOWED.asking(client_ip="::ffff:192.0.2.7").decided() is None
    assert ALLOWED.asking(client_ip="::ffff:198.51.100.7").decided() is DenialReason.IP_NOT_AUTHORIZED


# Resources, permissions, acting as another.


def test_a_key_without_restrictions_may_be_used_for_every_resource() -> None:
    assert ALLOWED.with_key(resources=()).asking(resource="sites/paris/orders").decided() is None


def test_a_traversal_does_not_leave_the_scope() -> None:
    asking = ALLOWED.asking(resource="sites/berlin/../paris")
    assert asking.decided() is DenialReason.RESOURCE_NOT_IN_SCOPE


def test_permissions_come_from_roles_as_well() -> None:
    asking = ALLOWED.with_key(permissions=())
    assert asking.decided() is DenialReason.INSUFFICIENT_PERMISSIONS
    assert replace(asking, role=Role(role_id="clerk", permissions=("orders.read",))).decided() is None


def test_a_business_key_with_star_does_not_satisfy_an_administrators_requirement() -> None:
    asking = ALLOWED.with_key(permissions=("*",)).asking(requirement=parse_requirement("latchgate.keys.create"))
    assert asking.decided() is DenialReason.INSUFFICIENT_PERMISSIONS


def test_a_key_may_act_as_its_own_user_and_only_as_that() -> None:
    asking = ALLOWED.with_key(default_user="bob")
    assert asking.asking(act_as="bob").decided() is None
    assert asking.asking(act_as="ada").decided() is DenialReason.ACT_AS_NOT_ALLOWED


def test_with_a_role_that_allows_it_a_key_may_act_as_anybody() -> None:
    asking = replace(ALLOWED.asking(act_as="carol"), role=Role(role_id="portal", allow_act_as=True))
    assert asking.decided() is None
