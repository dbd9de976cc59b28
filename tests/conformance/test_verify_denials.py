"""VerifyService.Verify denies: for which reasons, and which of several it names."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import decision_pb2, key_pb2
from latchgate.v1.verify_service_pb2 import VerifyResponse
from tests.conformance.house import House
from tests.support.server import Admin, Verify

# Credentials that prove nothing, one for each reason, each made of a key string and another one.
UNPROVEN: Mapping[str, Callable[[str, str], str]] = {
    "MISSING_API_KEY": lambda key_string, other: "",
    "INVALID_API_KEY": lambda key_string, other: f"x{key_string}",
    "SECRET_REQUIRED": lambda key_string, other: key_string.partition(".")[0],
    "INVALID_SECRET": lambda key_string, other: f"{key_string.partition('.')[0]}.{other.partition('.')[2]}",
}
OF_LIMITS = {"RATE_LIMITED", "QUOTA_EXCEEDED"}
"""Tried where limits are."""

# What a key can be like, and what can be asked of it that it may not do: one way for each reason, in the order in which
# they are checked. A key is in one state only, so never both revoked and disabled.
STORED = ("TENANT_DISABLED", "API_KEY_REVOKED", "API_KEY_DISABLED", "API_KEY_EXPIRED")
ASKED: Mapping[str, Mapping[str, str]] = {
    "IP_NOT_AUTHORIZED": {"client_ip": "198.51.100.7"},
    "TENANT_MISMATCH": {"tenant_id": "another-tenant"},
    "RESOURCE_NOT_IN_SCOPE": {"resource": "sites/paris/orders"},
    "CAPABILITY_NOT_IN_PLAN": {"required_capability": "import"},
    "INSUFFICIENT_PERMISSIONS": {"required_permissions": "stock.read"},
    "ACT_AS_NOT_ALLOWED": {"act_as": "bob"},
}
REASONS = [*STORED, *ASKED]
PAIRS = [pair for pair in combinations(REASONS, 2) if set(pair) != {"API_KEY_REVOKED", "API_KEY_DISABLED"}]

TRANSPORTS = ("auto", "tls")


@dataclass
class Keys:
    """Keys under every restriction there is, made once for each combination of what is stored."""

    house: House
    made: dict[frozenset[str], tuple[str, str]]

    def get(self, stored: frozenset[str]) -> tuple[str, str]:
        """Tenant and key string."""
        if stored not in self.made:
            self.made[stored] = self._make(stored)
        return self.made[stored]

    def _make(self, stored: frozenset[str]) -> tuple[str, str]:
        tenant_id = self.house.tenant(plan_id=self.house.plan(capabilities=["export"]))
        key = self.house.key(
            tenant_id,
            owner="ada",
            permissions=["orders.*"],
            resources=["sites/berlin/*"],
            ip_allowlist=key_pb2.IpAllowlist(enabled=True, ranges=["192.0.2.0/24"]),
            expire_time=datetime.now(UTC) + timedelta(hours=-1 if "API_KEY_EXPIRED" in stored else 1),
        )
        root, key_id = self.house.root, key.key.key_id
        if "API_KEY_REVOKED" in stored:
            root.RevokeKey(pb.RevokeKeyRequest(key_id=key_id))
        if "API_KEY_DISABLED" in stored:
            root.DisableKey(pb.DisableKeyRequest(key_id=key_id))
        if "TENANT_DISABLED" in stored:
            root.DisableTenant(pb.DisableTenantRequest(tenant_id=tenant_id))
        return tenant_id, key.key_string


@pytest.fixture(scope="module")
def keys(house: House) -> Keys:
    return Keys(house, {})


def asked(keys: Keys, verify: Verify, *failing: str, **replaced: Any) -> VerifyResponse:
    """The answer about a key that fails these checks and no others. replaced: fields of the request."""
    tenant_id, key_string = keys.get(frozenset(failing) & frozenset(STORED))
    request: dict[str, Any] = {
        "key": key_string,
        "client_ip": "192.0.2.7",
        "tenant_id": tenant_id,
        "resource": "sites/berlin/orders",
        "required_capability": "export",
        "required_permissions": "orders.read AND NOT stock.read",
        "act_as": "ada",
    }
    for reason in failing:
        request |= ASKED.get(reason, {})
    response: VerifyResponse = verify(**(request | replaced))
    return response


def reason(response: VerifyResponse) -> str:
    """The reason of a denial, without its prefix; empty for an allowed key."""
    assert (response.decision == decision_pb2.DECISION_ALLOW) == (response.denial_reason == 0)
    name = decision_pb2.DenialReason.Name(response.denial_reason).removeprefix("DENIAL_REASON_")
    return "" if name == "UNSPECIFIED" else name


# Which reason is told.


def test_a_key_that_passes_every_check_is_allowed(keys: Keys, verify: Verify) -> None:
    response = asked(keys, verify)
    assert reason(response) == ""
    assert response.message == ""


def test_the_reasons_tried_here_are_all_that_there_are_before_the_limits() -> None:
    known = [value.name.removeprefix("DENIAL_REASON_") for value in decision_pb2.DenialReason.DESCRIPTOR.values]
    assert [*UNPROVEN, *REASONS] == [name for name in known if name not in {"UNSPECIFIED", *OF_LIMITS}]


@pytest.mark.parametrize("failing", UNPROVEN)
def test_a_credential_that_proves_nothing_is_denied_for_what_it_lacks(
    keys: Keys, verify: Verify, house: House, failing: str
) -> None:
    _, key_string = keys.get(frozenset())
    key = UNPROVEN[failing](key_string, house.key().key_string)
    assert reason(asked(keys, verify, key=key)) == failing


@pytest.mark.parametrize("failing", REASONS)
def test_a_check_that_fails_alone_is_the_reason(keys: Keys, verify: Verify, failing: str) -> None:
    assert reason(asked(keys, verify, failing)) == failing


@pytest.mark.parametrize(("earlier", "later"), PAIRS)
def test_of_two_checks_that_fail_the_earlier_is_the_reason(
    keys: Keys, verify: Verify, earlier: str, later: str
) -> None:
    assert reason(asked(keys, verify, earlier, later)) == earlier


@pytest.mark.parametrize("state", ["API_KEY_REVOKED", "API_KEY_DISABLED"])
def test_of_all_checks_that_fail_the_first_is_the_reason(keys: Keys, verify: Verify, state: str) -> None:
    assert reason(asked(keys, verify, "TENANT_DISABLED", state, "API_KEY_EXPIRED", *ASKED)) == "TENANT_DISABLED"


@pytest.mark.parametrize("failing", REASONS)
def test_a_denial_comes_with_a_message_for_people_that_tells_the_reason_alone(
    keys: Keys, verify: Verify, failing: str
) -> None:
    later = [other for other in REASONS[REASONS.index(failing) :] if other in ASKED]
    message = asked(keys, verify, failing).message
    assert message
    assert asked(keys, verify, failing, *later).message == message


# Nothing about a key is told before its secret is proven.


@pytest.mark.parametrize("failing", ["", *STORED])
def test_without_a_key_without_its_secret_and_with_a_wrong_one_all_keys_look_the_same(
    keys: Keys, verify: Verify, house: House, failing: str
) -> None:
    _, key_string = keys.get(frozenset([failing]) - {""})
    key_id = key_string.partition(".")[0]
    wrong = f"{key_id}.{house.key().key_string.partition('.')[2]}"
    answers = [asked(keys, verify, *ASKED, key=key) for key in ["", key_id, f"{key_id}.", wrong]]
    assert [reason(answer) for answer in answers] == [
        "MISSING_API_KEY",
        "SECRET_REQUIRED",
        "SECRET_REQUIRED",
        "INVALID_SECRET",
    ]
    assert not any(answer.HasField("identity") for answer in answers)


@pytest.mark.parametrize("failing", REASONS)
def test_who_has_proven_the_secret_is_told_whose_key_it_is_on_denials_too(
    keys: Keys, verify: Verify, failing: str
) -> None:
    tenant_id, key_string = keys.get(frozenset([failing]) & frozenset(STORED))
    response = asked(keys, verify, failing)
    assert response.identity.tenant_id == tenant_id
    assert response.identity.key_id == key_string.partition(".")[0]
    assert response.identity.user == "ada"
    assert response.revision > 0


def test_a_deleted_key_is_one_that_never_was(verify: Verify, house: House) -> None:
    made = house.key()
    assert reason(verify(made.key_string)) == ""
    house.root.DeleteKey(pb.DeleteKeyRequest(key_id=made.key.key_id))
    response = verify(made.key_string)
    assert reason(response) == "INVALID_API_KEY"
    assert not response.HasField("identity")
    assert reason(verify(made.key.key_id)) == "SECRET_REQUIRED", "told by arithmetic alone, with no look-up"


# The state of tenant and key.


def test_a_tenants_switch_denies_all_of_its_keys_and_lets_them_work_again(verify: Verify, house: House) -> None:
    tenant_id = house.tenant()
    made = [house.key(tenant_id), house.key(tenant_id)]
    elsewhere = house.key()
    house.root.DisableTenant(pb.DisableTenantRequest(tenant_id=tenant_id))
    assert [reason(verify(key.key_string)) for key in made] == ["TENANT_DISABLED"] * 2
    assert reason(verify(elsewhere.key_string)) == ""
    house.root.EnableTenant(pb.EnableTenantRequest(tenant_id=tenant_id))
    assert [reason(verify(key.key_string)) for key in made] == ["", ""]


def test_a_key_expires_by_itself_when_its_time_has_come(verify: Verify, house: House) -> None:
    expire_at = time.time() + 0.7
    expire_time = Timestamp()
    expire_time.FromNanoseconds(int(expire_at * 1e9))
    key_string = house.key(expire_time=expire_time).key_string
    before = True
    while before:
        sent = time.time()
        answer = reason(verify(key_string))
        answered = time.time()
        if answered < expire_at:
            assert answer == ""
        before = sent < expire_at
        if not before:
            assert answer == "API_KEY_EXPIRED"
        time.sleep(0.05)


# Addresses.


@pytest.mark.parametrize(
    ("ranges", "client_ip"),
    [
        (["192.0.2.7"], "192.0.2.7"),
        (["192.0.2.0/24"], "192.0.2.255"),
        (["10.0.0.0/8", "192.0.2.0/31"], "192.0.2.1"),
        (["0.0.0.0/0"], "203.0.113.9"),
        (["2001:db8::/32"], "2001:DB8:0:0::7"),
        (["192.0.2.0/24"], "::ffff:192.0.2.7"),
        (["192.0.2.0/24"], "::ffff:c000:207"),
        (["::ffff:192.0.2.0/120"], "192.0.2.7"),
    ],
)
def test_a_client_within_the_allowlist_is_let_in(
    verify: Verify, house: House, ranges: list[str], client_ip: str
) -> None:
    key = house.key(ip_allowlist=key_pb2.IpAllowlist(enabled=True, ranges=ranges))
    assert reason(verify(key.key_string, client_ip=client_ip)) == ""


@pytest.mark.parametrize(
    ("ranges", "client_ip"),
    [
        (["192.0.2.7"], "192.0.2.8"),
        (["192.0.2.0/24"], "192.0.3.0"),
        (["0.0.0.0/0"], "2001:db8::7"),
        (["::/0"], "192.0.2.7"),
        (["::/0"], "::ffff:192.0.2.7"),
        (["192.0.2.0/24"], ""),
        (["192.0.2.0/24"], "192.0.2.7:443"),
        (["192.0.2.0/24"], "192.0.2.007"),
        (["192.0.2.0/24"], "192.0.2.7, 198.51.100.7"),
        (["192.0.2.0/24"], "192.0.2.7\0"),
        (["192.0.2.0/24"], " 192.0.2.7"),
        (["192.0.2.0/24"], "\uff11\uff19\uff12.0.2.7"),
        (["2001:db8::/32"], "[2001:db8::7]"),
        (["2001:db8::/32"], "2001:db8::7%eth0"),
        (["192.0.2.0/24"], "x" * 100_000),
    ],
)
def test_every_other_client_address_and_every_malformed_one_is_denied(
    verify: Verify, house: House, ranges: list[str], client_ip: str
) -> None:
    key = house.key(ip_allowlist=key_pb2.IpAllowlist(enabled=True, ranges=ranges))
    assert reason(verify(key.key_string, client_ip=client_ip)) == "IP_NOT_AUTHORIZED"


@pytest.mark.parametrize(
    "allowlist",
    [key_pb2.IpAllowlist(enabled=True), key_pb2.IpAllowlist(enabled=False, ranges=["192.0.2.7"]), None],
)
@pytest.mark.parametrize("client_ip", ["", "198.51.100.7", "nonsense"])
def test_an_allowlist_that_is_empty_or_off_does_not_apply(
    verify: Verify, house: House, allowlist: key_pb2.IpAllowlist | None, client_ip: str
) -> None:
    key = house.key(ip_allowlist=allowlist)
    assert reason(verify(key.key_string, client_ip=client_ip)) == ""


# Permissions.


@pytest.mark.parametrize(
    ("grants", "requirement"),
    [
        (["orders.read"], "orders.read"),
        (["orders.*"], "orders.lines.read"),
        (["*"], "orders.read AND stock.read"),
        (["orders.read"], "orders.read AND NOT orders.write"),
        (["orders.read"], "stock.read OR orders.read"),
        (["a", "c"], "a AND (b OR c)"),
        (["a"], "a OR b AND c"),
        ([], "NOT a"),
        (["latchgate.verify"], "latchgate.verify"),
        (["latchgate.*"], "latchgate.keys.create"),
    ],
)
def test_permissions_that_satisfy_the_requirement_suffice(
    verify: Verify, house: House, grants: list[str], requirement: str
) -> None:
    assert reason(verify(house.key(permissions=grants).key_string, required_permissions=requirement)) == ""


@pytest.mark.parametrize(
    ("grants", "requirement"),
    [
        ([], "orders.read"),
        (["orders.*"], "orders"),
        (["orders.*"], "ordersx.read"),
        (["orders.read"], "orders.read.all"),
        (["orders.read"], "Orders.read"),
        (["*"], "NOT orders.read"),
        (["a"], "(a OR b) AND c"),
        (["*"], "latchgate.x"),
        (["*"], "latchgate.keys.create"),
        (["latchgate.keys.*"], "latchgate.tenants.create"),
    ],
)
def test_permissions_that_do_not_satisfy_the_requirement_are_denied(
    verify: Verify, house: House, grants: list[str], requirement: str
) -> None:
    response = verify(house.key(permissions=grants).key_string, required_permissions=requirement)
    assert reason(response) == "INSUFFICIENT_PERMISSIONS"


def test_a_business_key_that_may_do_everything_is_no_administrator(verify: Verify, house: House) -> None:
    key_string = house.key(permissions=["*"]).key_string
    assert reason(verify(key_string, required_permissions="anything.at.all")) == ""
    assert reason(verify(key_string, required_permissions="latchgate.x")) == "INSUFFICIENT_PERMISSIONS"


# Resources, tenants, capabilities, acting as another.


@pytest.mark.parametrize(
    ("resources", "resource", "expected"),
    [
        (["sites/berlin/*"], "sites/berlin/orders/7", ""),
        (["sites/berlin"], "sites/berlin", ""),
        (["sites/paris", "sites/berlin/*"], "sites/paris", ""),
        (["sites/berlin/*"], "", ""),
        ([], "sites/anywhere", ""),
        (["sites/berlin/*"], "sites/berlin", "RESOURCE_NOT_IN_SCOPE"),
        (["sites/berlin"], "sites/berlin/orders", "RESOURCE_NOT_IN_SCOPE"),
        (["sites/berlin/*"], "sites/berlin2/orders", "RESOURCE_NOT_IN_SCOPE"),
        (["sites/berlin/*"], "Sites/berlin/orders", "RESOURCE_NOT_IN_SCOPE"),
        (["sites/berlin/*"], "sites/berlin/../paris", "RESOURCE_NOT_IN_SCOPE"),
        (["sites/berlin/*"], "sites/berlin/./orders", "RESOURCE_NOT_IN_SCOPE"),
        (["sites/berlin/*"], "sites/berlin//orders", "RESOURCE_NOT_IN_SCOPE"),
        (["sites/berlin/*"], "sites/berlin/%2e%2e/paris", "RESOURCE_NOT_IN_SCOPE"),
        (["sites/berlin/*"], "sites/berlin/..\\paris", "RESOURCE_NOT_IN_SCOPE"),
        (["sites/berlin/*"], "sites/berlin/x\0y", "RESOURCE_NOT_IN_SCOPE"),
        (["sites/berlin/*"], "/sites/berlin/orders", "RESOURCE_NOT_IN_SCOPE"),
        (["sites/berlin/*"], "sites/berlin/", "RESOURCE_NOT_IN_SCOPE"),
        (["sites/berlin/*"], "sites/berlin/*", "RESOURCE_NOT_IN_SCOPE"),
    ],
)
def test_a_key_restricted_to_resources_opens_those_alone_and_no_detour_to_others(
    verify: Verify, house: House, resources: list[str], resource: str, expected: str
) -> None:
    assert reason(verify(house.key(resources=resources).key_string, resource=resource)) == expected


@pytest.mark.parametrize("other", ["another-tenant", "tenant", "TENANT-1", "x" * 10_000, "tenant-1\0", "*"])
def test_another_tenants_resource_is_denied_in_the_words_for_what_does_not_exist(
    verify: Verify, house: House, other: str
) -> None:
    response = verify(house.key().key_string, tenant_id=other)
    assert reason(response) == "TENANT_MISMATCH"
    out_of_scope = verify(house.key(resources=["a"]).key_string, resource="b")
    assert response.message == out_of_scope.message == "There is no such resource."


def test_a_tenant_without_a_plan_has_no_capabilities(verify: Verify, house: House) -> None:
    assert reason(verify(house.key().key_string, required_capability="export")) == "CAPABILITY_NOT_IN_PLAN"


@pytest.mark.parametrize("capability", ["EXPORT", "expor", "export ", "export\0", "*"])
def test_a_capability_is_in_a_plan_only_by_its_exact_name(verify: Verify, house: House, capability: str) -> None:
    key = house.key(house.tenant(plan_id=house.plan(capabilities=["export"])))
    assert reason(verify(key.key_string, required_capability="export")) == ""
    assert reason(verify(key.key_string, required_capability=capability)) == "CAPABILITY_NOT_IN_PLAN"


def test_only_a_role_lets_a_key_act_as_somebody_else(verify: Verify, house: House) -> None:
    tenant_id = house.tenant()
    plain = house.key(tenant_id, owner="ada", permissions=["*"]).key_string
    portal = house.key(tenant_id, owner="ada", role_ids=[house.role(tenant_id, allow_act_as=True)]).key_string
    assert reason(verify(plain, act_as="ada")) == ""
    assert reason(verify(plain, act_as="bob")) == "ACT_AS_NOT_ALLOWED"
    assert reason(verify(portal, act_as="bob")) == ""


def test_an_administrators_change_decides_the_very_next_verification(verify: Verify, house: House, root: Admin) -> None:
    made = house.key()
    for disable, expected in [(True, "API_KEY_DISABLED"), (False, "")] * 5:
        if disable:
            root.DisableKey(pb.DisableKeyRequest(key_id=made.key.key_id))
        else:
            root.EnableKey(pb.EnableKeyRequest(key_id=made.key.key_id))
        assert reason(verify(made.key_string)) == expected
