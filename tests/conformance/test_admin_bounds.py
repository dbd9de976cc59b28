"""The bounds of AdminService: what is at a bound is taken, what is one beyond it is refused by the field's path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2, tenant_pb2
from latchgate_server.core import bounds
from tests.conformance.house import House
from tests.conformance.wire import Refusal, code_of, refusal
from tests.support.server import Admin

TENANT = "bounds"
UNTRIED = {
    "KEY_STRING_LENGTH": "of the data plane, see test_verify_bad_input.py",
    "CLIENT_ADDRESS_LENGTH": "of the data plane, where a longer one is in no allowlist",
    "REQUIREMENT_LENGTH": "of the data plane, see test_verify_bad_input.py",
    "REQUIREMENT_DEPTH": "of the data plane, see test_verify_bad_input.py",
    "BATCH_SIZE": "of the data plane, see test_verify_bad_input.py",
    "REQUEST_INFO_LENGTH": "of the data plane, see test_usage.py",
    "USES_PER_KEY": "of usage records, see test_usage.py",
    "SOURCES_PER_KEY": "of usage records, see test_usage.py",
    "USAGE_BUCKETS": "see test_usage.py",
    "PAGE_SIZE_DEFAULT": "no bound, see test_admin_lists.py",
    "PAGE_SIZE": "more counts as this, see test_admin_lists.py",
    "VIOLATIONS": "of answers, see below",
    "QUOTED_LENGTH": "of answers, see below",
    "GRACE_PERIOD_SECONDS": "see test_admin_rotation.py",
    "LEAKED_KEYS": "see test_admin_emergencies.py",
    "CREDENTIAL_SOURCES": "of a setting, see unit/test_credential_sources.py",
    "HEADER_NAME_LENGTH": "of settings, see unit/test_credential_sources.py",
    "DENIAL_CODE_LENGTH": "of a setting, see unit/test_http_denials.py",
    "DENIAL_MESSAGE_LENGTH": "of a setting, see unit/test_http_denials.py",
    "IDENTITY_HEADERS_BYTES": "of the data plane, see test_check_routes.py",
    "COST": "of the data plane, see test_check_routes.py",
    "WATCHERS": "of clients that watch, see test_watchers.py in tests/consistency",
    "WATCHER_BACKLOG": "of clients that watch, see test_watchers.py in tests/consistency",
    "WATCHER_SILENCE_SECONDS": "a minute of silence, which no test waits for",
    "WATCHER_MESSAGES_PER_SECOND": "of clients that watch, see test_pace.py in tests/unit",
    "WATCHER_MESSAGES_AT_ONCE": "of clients that watch, see test_pace.py in tests/unit",
    "WATCHER_USES_PER_MESSAGE": "of clients that watch, see test_pace.py in tests/unit",
    "CACHED_USE_REASONS": "of clients that watch, see test_watch_keys.py",
    "BUSIEST_KEYS": "asking for more gives as many",
    "BUSIEST_KEYS_LOOKED_AT": "of what is compared within the server, which no request names",
    "CACHED_USES": "of clients that watch, see test_watch_keys.py",
    "CACHED_USE_COUNT": "of clients that watch, see test_watch_keys.py",
    "CACHED_USES_WAITING": "of what waits to be counted, beyond which uses are dropped and counted as such",
    "IMPORTED_KEYS": "see test_admin_import_refused.py",
    "IMPORT_PHC_LENGTH": "see test_imported.py in tests/unit",
    "IMPORT_ARGON2_KIB": "see test_imported.py in tests/unit",
    "IMPORT_ARGON2_PASSES": "see test_imported.py in tests/unit",
    "IMPORT_ARGON2_LANES": "see test_imported.py in tests/unit",
    "IMPORT_ARGON2_WORK": "see test_imported.py in tests/unit",
    "IMPORT_ARGON2_BYTES": "see test_imported.py in tests/unit",
    "UNKNOWN_FORMS_AT_ONCE": "of the data plane, see test_imported_lookups.py in tests/unit",
    "UNKNOWN_FORMS_PER_SECOND": "of the data plane, see test_imported_lookups.py in tests/unit",
    "UNKNOWN_FORM_WAIT_SECONDS": "of the data plane, see test_imported_lookups.py in tests/unit",
    "WRONG_TRIES_AT_ONCE": "of the data plane, see test_admin_import.py",
    "WRONG_TRIES_PER_MINUTE": "of the data plane, see test_imported_lookups.py in tests/unit",
    "WRONG_TRIES_REMEMBERED": "of the data plane, see test_imported_lookups.py in tests/unit",
    "IMPORTED_PROOFS_AT_ONCE": "of the data plane, see test_hashing.py in tests/unit",
}


@dataclass(frozen=True)
class Bound:
    """A field at its bound, and one beyond. field: the path by which the second is refused."""

    name: str
    field: str
    at: Message
    beyond: Message

    def __str__(self) -> str:
        return f"{type(self.at).__name__}-{self.field}-{self.name}"


def value(name: str) -> int:
    return int(getattr(bounds, name))


def create_key(**fields: Any) -> pb.CreateKeyRequest:
    return pb.CreateKeyRequest(key=key_pb2.Key(tenant_id=TENANT, **fields))


def create_role(**fields: Any) -> pb.CreateRoleRequest:
    return pb.CreateRoleRequest(role=tenant_pb2.Role(**{"role_id": fresh(), "tenant_id": TENANT, **fields}))


def create_plan(**fields: Any) -> pb.CreatePlanRequest:
    return pb.CreatePlanRequest(plan=tenant_pb2.Plan(**{"plan_id": fresh(), **fields}))


def create_tenant(**fields: Any) -> pb.CreateTenantRequest:
    return pb.CreateTenantRequest(tenant=tenant_pb2.Tenant(**{"tenant_id": fresh(), **fields}))


def list_keys(**fields: Any) -> pb.ListKeysRequest:
    return pb.ListKeysRequest(filter=pb.KeyFilter(**fields))


_ids = iter(range(1_000_000))


def fresh() -> str:
    return f"fresh-{next(_ids)}"


def claims(size: int) -> Struct:
    """Claims that are so many bytes long as JSON."""
    return ParseDict({"x": "a" * (size - len('{"x": ""}'))}, Struct())


def nested(depth: int) -> Struct:
    """Claims with a value so many levels deep."""
    inner: object = 7
    for _ in range(depth - 1):
        inner = [inner]
    return ParseDict({"x": inner}, Struct())


def texts(name: str, field: str, make: Any, leaf: str) -> Bound:
    """A field that is text."""
    return Bound(name, field, make(**{leaf: "x" * value(name)}), make(**{leaf: "x" * (value(name) + 1)}))


def ids(field: str, make: Any, leaf: str) -> Bound:
    """A field that is an id; ids are made of the next number, so that none is taken."""
    longest = f"x{next(_ids)}".ljust(value("ID_LENGTH"), "x")
    return Bound("ID_LENGTH", field, make(**{leaf: longest}), make(**{leaf: longest + "x"}))


def lists(name: str, field: str, make: Any, leaf: str, entry: str) -> Bound:
    """A field that is repeated. entry: a format for the entries, which differ by their number."""
    entries = [entry.format(number) for number in range(value(name) + 1)]
    return Bound(name, field, make(**{leaf: entries[:-1]}), make(**{leaf: entries}))


def entries(name: str, field: str, make: Any, leaf: str) -> Bound:
    """The entry of a repeated field that is text."""
    return Bound(name, f"{field}[0]", make(**{leaf: ["x" * value(name)]}), make(**{leaf: ["x" * (value(name) + 1)]}))


def patterns(name: str, field: str, make: Any, leaf: str, wildcard: str) -> Bound:
    """The entry of a repeated field that ends in a wildcard, which counts."""
    longest = "x" * (value(name) - len(wildcard)) + wildcard
    return Bound(name, f"{field}[0]", make(**{leaf: [longest]}), make(**{leaf: ["x" + longest]}))


def tags(field: str, make: Any) -> Iterator[Bound]:
    """A map of tags."""
    most, name, text = value("TAGS"), value("TAG_NAME_LENGTH"), value("TAG_VALUE_LENGTH")
    many = {f"tag-{number}": "" for number in range(most)}
    yield Bound("TAGS", field, make(tags=many), make(tags=many | {"one-more": ""}))
    yield Bound("TAG_NAME_LENGTH", field, make(tags={"x" * name: ""}), make(tags={"x" * (name + 1): ""}))
    yield Bound("TAG_VALUE_LENGTH", field, make(tags={"x": "y" * text}), make(tags={"x": "y" * (text + 1)}))


def allowlist(*ranges: str) -> key_pb2.IpAllowlist:
    return key_pb2.IpAllowlist(ranges=ranges)


def rate(name: str = "x", limit: int = 1, seconds: int = 1, burst: int = 0) -> key_pb2.Limit:
    period = Duration(seconds=seconds)
    return key_pb2.Limit(name=name, rate_limit=key_pb2.RateLimit(limit=limit, period=period, burst=burst))


def quota(limit: int = 1, period: int = key_pb2.Quota.PERIOD_DAY) -> key_pb2.Limit:
    of_day = key_pb2.Quota(limit=limit, period=key_pb2.Quota.Period.ValueType(period))
    return key_pb2.Limit(name="x", quota=of_day)


def limits(field: str, make: Any, leaf: str) -> Iterator[Bound]:
    """A list of limits."""

    def bound(name: str, path: str, at: key_pb2.Limit, beyond: key_pb2.Limit) -> Bound:
        return Bound(name, f"{field}[0].{path}", make(**{leaf: [at]}), make(**{leaf: [beyond]}))

    many = [rate(f"limit-{number}") for number in range(value("LIMITS") + 1)]
    yield Bound("LIMITS", field, make(**{leaf: many[:-1]}), make(**{leaf: many}))
    longest, most, period = value("ID_LENGTH"), value("LIMIT_VALUE"), value("LIMIT_PERIOD_SECONDS")
    yield bound("ID_LENGTH", "name", rate("x" * longest), rate("x" * (longest + 1)))
    yield bound("LIMIT_VALUE", "rate_limit.limit", rate(limit=most), rate(limit=most + 1))
    yield bound("LIMIT_VALUE", "rate_limit.burst", rate(burst=most), rate(burst=most + 1))
    yield bound("LIMIT_VALUE", "quota.limit", quota(most), quota(most + 1))
    yield bound("LIMIT_PERIOD_SECONDS", "rate_limit.period", rate(seconds=period), rate(seconds=period + 1))


def key_bounds() -> Iterator[Bound]:
    yield texts("DISPLAY_NAME_LENGTH", "key.display_name", create_key, "display_name")
    yield texts("DESCRIPTION_LENGTH", "key.description", create_key, "description")
    yield texts("USER_LENGTH", "key.owner", create_key, "owner")
    yield texts("USER_LENGTH", "key.default_user", create_key, "default_user")
    yield texts("ENVIRONMENT_LENGTH", "key.environment", create_key, "environment")
    yield lists("ROLES_PER_KEY", "key.role_ids", create_key, "role_ids", "role-{}")
    yield lists("PERMISSIONS", "key.permissions", create_key, "permissions", "permission.{}")
    yield entries("PERMISSION_LENGTH", "key.permissions", create_key, "permissions")
    yield patterns("PERMISSION_LENGTH", "key.permissions", create_key, "permissions", ".*")
    yield lists("RESOURCES", "key.resources", create_key, "resources", "resource/{}/*")
    yield entries("RESOURCE_LENGTH", "key.resources", create_key, "resources")
    yield patterns("RESOURCE_LENGTH", "key.resources", create_key, "resources", "/*")
    ranges = [f"10.{number // 256}.{number % 256}.0/24" for number in range(value("ADDRESS_RANGES") + 1)]
    yield Bound(
        "ADDRESS_RANGES",
        "key.ip_allowlist.ranges",
        create_key(ip_allowlist=allowlist(*ranges[:-1])),
        create_key(ip_allowlist=allowlist(*ranges)),
    )
    yield from tags("key.tags", create_key)
    yield from limits("key.limits", create_key, "limits")
    size, depth = value("CLAIMS_BYTES"), value("CLAIMS_DEPTH")
    for of, make in (("key", create_key), ("role", create_role)):
        yield Bound("CLAIMS_BYTES", f"{of}.claims", make(claims=claims(size)), make(claims=claims(size + 1)))
        yield Bound("CLAIMS_DEPTH", f"{of}.claims", make(claims=nested(depth)), make(claims=nested(depth + 1)))
    prefix = "x" * value("KEY_PREFIX_LENGTH")
    key = key_pb2.Key(tenant_id=TENANT)
    yield Bound(
        "KEY_PREFIX_LENGTH",
        "prefix",
        pb.CreateKeyRequest(key=key, prefix=prefix),
        pb.CreateKeyRequest(key=key, prefix=prefix + "x"),
    )


def other_bounds() -> Iterator[Bound]:
    yield ids("tenant.tenant_id", create_tenant, "tenant_id")
    yield texts("DISPLAY_NAME_LENGTH", "tenant.display_name", create_tenant, "display_name")
    yield ids("tenant.plan_id", create_tenant, "plan_id")
    yield from tags("tenant.tags", create_tenant)
    yield from limits("tenant.limits", create_tenant, "limits")
    yield ids("plan.plan_id", create_plan, "plan_id")
    yield texts("DISPLAY_NAME_LENGTH", "plan.display_name", create_plan, "display_name")
    yield lists("CAPABILITIES", "plan.capabilities", create_plan, "capabilities", "capability-{}")
    yield entries("CAPABILITY_LENGTH", "plan.capabilities", create_plan, "capabilities")
    yield from limits("plan.key_limits", create_plan, "key_limits")
    yield from limits("plan.tenant_limits", create_plan, "tenant_limits")
    yield ids("role.role_id", create_role, "role_id")
    yield ids("role.tenant_id", create_role, "tenant_id")
    yield texts("DISPLAY_NAME_LENGTH", "role.display_name", create_role, "display_name")
    yield texts("DESCRIPTION_LENGTH", "role.description", create_role, "description")
    yield lists("PERMISSIONS", "role.permissions", create_role, "permissions", "permission.{}")
    yield entries("PERMISSION_LENGTH", "role.permissions", create_role, "permissions")
    yield ids("tenant_id", pb.GetTenantRequest, "tenant_id")
    yield ids("plan_id", pb.GetPlanRequest, "plan_id")
    yield ids("role_id", pb.GetRoleRequest, "role_id")
    yield ids("tenant_id", lambda tenant_id: pb.GetRoleRequest(role_id="x", tenant_id=tenant_id), "tenant_id")
    yield ids("tenant_id", pb.ListRolesRequest, "tenant_id")
    for of_tenant in (pb.EnableTenantRequest, pb.DisableTenantRequest):
        yield ids("tenant_id", of_tenant, "tenant_id")
        yield texts("REASON_LENGTH", "reason", partial(of_tenant, tenant_id=TENANT), "reason")
    yield texts("KEY_ID_LENGTH", "key_id", pb.GetKeyRequest, "key_id")
    for of_key in (
        pb.EnableKeyRequest,
        pb.DisableKeyRequest,
        pb.ExpireKeyRequest,
        pb.RevokeKeyRequest,
        pb.DeleteKeyRequest,
    ):
        yield texts("KEY_ID_LENGTH", "key_id", of_key, "key_id")
        yield texts("REASON_LENGTH", "reason", partial(of_key, key_id="no-such-key"), "reason")


def list_bounds() -> Iterator[Bound]:
    yield ids("filter.tenant_id", list_keys, "tenant_id")
    yield texts("USER_LENGTH", "filter.owner", list_keys, "owner")
    yield ids("filter.role_id", list_keys, "role_id")
    yield texts("ENVIRONMENT_LENGTH", "filter.environment", list_keys, "environment")
    yield from tags("filter.tags", list_keys)
    states = [key_pb2.Key.STATE_ACTIVE] * (value("FILTER_STATES") + 1)
    yield Bound("FILTER_STATES", "filter.states", list_keys(states=states[:-1]), list_keys(states=states))
    yield texts("DISPLAY_NAME_LENGTH", "filter.search", list_keys, "search")


def update_bounds() -> Iterator[Bound]:
    def update(**fields: Any) -> pb.UpdateKeyRequest:
        return pb.UpdateKeyRequest(key=key_pb2.Key(**{"key_id": "no-such-key", **fields}))

    def masked(count: int) -> pb.UpdateKeyRequest:
        mask = FieldMask(paths=["display_name"] * count)
        return pb.UpdateKeyRequest(key=key_pb2.Key(key_id="no-such-key"), update_mask=mask)

    yield texts("KEY_ID_LENGTH", "key.key_id", update, "key_id")
    yield texts("ETAG_LENGTH", "key.etag", update, "etag")
    yield texts("DISPLAY_NAME_LENGTH", "key.display_name", update, "display_name")
    yield lists("PERMISSIONS", "key.permissions", update, "permissions", "permission.{}")
    yield Bound("MASK_PATHS", "update_mask", masked(value("MASK_PATHS")), masked(value("MASK_PATHS") + 1))


BOUNDS = [*key_bounds(), *other_bounds(), *list_bounds(), *update_bounds()]


@pytest.fixture(scope="module", autouse=True)
def roles(house: House) -> None:
    """The tenant of these tests, with as many roles as a key can have."""
    house.tenant(tenant_id=TENANT)
    for number in range(bounds.ROLES_PER_KEY):
        house.role(TENANT, role_id=f"role-{number}")


def call(admin: Admin, request: Message) -> object:
    """The RPC that the request is of."""
    return getattr(admin, type(request).__name__.removesuffix("Request"))(request)


def refused_field(admin: Admin, request: Message) -> Refusal:
    refused = refusal(lambda: call(admin, request))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert refused.metadata == {}
    assert all(field in refused.message for field in refused.fields)
    assert all(refused.descriptions)
    return refused


# The bounds of core/bounds.py.


@pytest.mark.parametrize("bound", BOUNDS, ids=str)
def test_what_is_one_beyond_a_bound_is_refused_by_its_path_and_what_is_at_it_is_not(root: Admin, bound: Bound) -> None:
    assert refused_field(root, bound.beyond).fields == (bound.field,)
    assert code_of(lambda: call(root, bound.at)) in {grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND}


def test_every_bound_is_tried() -> None:
    all_bounds = {name for name in vars(bounds) if name.isupper()}
    tried = {bound.name for bound in BOUNDS} | {"PAGE_TOKEN_LENGTH"}
    assert tried | UNTRIED.keys() == all_bounds
    assert not tried & UNTRIED.keys()


@pytest.mark.parametrize("method", ["ListTenants", "ListPlans", "ListRoles", "ListKeys"])
def test_a_page_token_that_is_too_long_or_a_negative_page_size_is_refused(root: Admin, method: str) -> None:
    request = getattr(pb, f"{method}Request")
    token = "x" * (bounds.PAGE_TOKEN_LENGTH + 1)
    assert refused_field(root, request(page_token=token)).fields == ("page_token",)
    assert refused_field(root, request(page_token=token[1:])).fields == ("page_token",), "not issued by us"
    assert refused_field(root, request(page_size=-1)).fields == ("page_size",)


# What is malformed whatever its length.

NEVER = Timestamp(seconds=-(2**60))
NOT_A_NUMBER = Struct(fields={"x": Value(number_value=float("nan"))})
INFINITE = Struct(fields={"x": Value(number_value=float("inf"))})


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (create_tenant(tenant_id=""), "tenant.tenant_id"),
        (create_tenant(tenant_id="Acme"), "tenant.tenant_id"),
        (create_tenant(tenant_id="1acme"), "tenant.tenant_id"),
        (create_tenant(tenant_id="ac_me"), "tenant.tenant_id"),
        (create_tenant(tenant_id="acme\n"), "tenant.tenant_id"),
        (create_tenant(tenant_id="acm\u00e9"), "tenant.tenant_id"),
        (create_tenant(display_name="a\0b"), "tenant.display_name"),
        (create_tenant(display_name="a\x1b[31mb"), "tenant.display_name"),
        (create_tenant(tags={"": "x"}), "tenant.tags"),
        (create_tenant(tags={"x": "a\nb"}), "tenant.tags"),
        (create_plan(plan_id=""), "plan.plan_id"),
        (create_plan(plan_id="-gold"), "plan.plan_id"),
        (create_plan(capabilities=["a b"]), "plan.capabilities[0]"),
        (create_plan(capabilities=["a", ""]), "plan.capabilities[1]"),
        (create_plan(max_keys=-1), "plan.max_keys"),
        (create_role(role_id="Reader"), "role.role_id"),
        (create_role(permissions=["a", "b c"]), "role.permissions[1]"),
        (create_role(permissions=["a*"]), "role.permissions[0]"),
        (create_role(permissions=["*.read"]), "role.permissions[0]"),
        (create_role(permissions=["AND"]), "role.permissions[0]"),
        (create_role(claims=NOT_A_NUMBER), "role.claims"),
        (pb.CreateKeyRequest(key=key_pb2.Key(tenant_id="Acme")), "key.tenant_id"),
        (pb.CreateKeyRequest(key=key_pb2.Key(tenant_id=TENANT), prefix="Lg"), "prefix"),
        (pb.CreateKeyRequest(key=key_pb2.Key(tenant_id=TENANT), prefix="lg."), "prefix"),
        (pb.CreateKeyRequest(key=key_pb2.Key(tenant_id=TENANT), request_id="not-a-uuid"), "request_id"),
        (create_key(owner="a\tb"), "key.owner"),
        (create_key(description="a\0b"), "key.description"),
        (create_key(role_ids=["Reader"]), "key.role_ids[0]"),
        (create_key(permissions=[""]), "key.permissions[0]"),
        (create_key(claims=INFINITE), "key.claims"),
        (create_key(claims=ParseDict({"a\0b": 1}, Struct())), "key.claims"),
        (create_key(claims=ParseDict({"a": {"b\0c": 1}}, Struct())), "key.claims"),
        (create_key(claims=ParseDict({"a": [{"b": "c\0d"}]}, Struct())), "key.claims"),
        (create_key(ip_allowlist=allowlist("10.0.0.0/8", "10.0.0.1/8")), "key.ip_allowlist.ranges[1]"),
        (create_key(ip_allowlist=allowlist("localhost")), "key.ip_allowlist.ranges[0]"),
        (create_key(ip_allowlist=allowlist("10.0.0.0/33")), "key.ip_allowlist.ranges[0]"),
        (create_key(ip_allowlist=allowlist("fe80::1%eth0")), "key.ip_allowlist.ranges[0]"),
        (create_key(resources=["sites/../x"]), "key.resources[0]"),
        (create_key(resources=["*"]), "key.resources[0]"),
        (create_key(resources=["a/*/b"]), "key.resources[0]"),
        (create_key(expire_time=NEVER), "key.expire_time"),
        (create_key(rotate_by_time=Timestamp(nanos=-1)), "key.rotate_by_time"),
        (create_key(limits=[key_pb2.Limit(name="x")]), "key.limits[0]"),
        (create_key(limits=[rate(name="")]), "key.limits[0].name"),
        (create_key(limits=[rate(name="a b")]), "key.limits[0].name"),
        (create_key(limits=[rate("a"), rate("a")]), "key.limits"),
        (create_key(limits=[rate(limit=0)]), "key.limits[0].rate_limit.limit"),
        (create_key(limits=[rate(seconds=0)]), "key.limits[0].rate_limit.period"),
        (create_key(limits=[rate(seconds=-1)]), "key.limits[0].rate_limit.period"),
        (create_key(limits=[rate(burst=-1)]), "key.limits[0].rate_limit.burst"),
        (create_key(limits=[quota(-1)]), "key.limits[0].quota.limit"),
        (create_key(limits=[quota(period=key_pb2.Quota.PERIOD_UNSPECIFIED)]), "key.limits[0].quota.period"),
        (create_key(limits=[quota(period=99)]), "key.limits[0].quota.period"),
        (pb.GetKeyRequest(), "key_id"),
        (pb.GetKeyRequest(key_id="lg_\0"), "key_id"),
        (pb.GetKeyRequest(key_id="l\u0261_x"), "key_id"),
        (pb.DeleteKeyRequest(key_id="x", reason="a\nb"), "reason"),
        (pb.GetTenantRequest(), "tenant_id"),
        (pb.GetPlanRequest(), "plan_id"),
        (pb.GetRoleRequest(), "role_id"),
        (list_keys(states=[key_pb2.Key.STATE_UNSPECIFIED]), "filter.states[0]"),
        (list_keys(states=[1, 99]), "filter.states[1]"),
        (list_keys(expires_before=NEVER), "filter.expires_before"),
        (list_keys(rotation_due_before=NEVER), "filter.rotation_due_before"),
        (list_keys(unused_since=NEVER), "filter.unused_since"),
        (list_keys(tags={"": ""}), "filter.tags"),
        (list_keys(search="a\0"), "filter.search"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_malformed_is_refused_by_its_path(root: Admin, request_: Message, field: str) -> None:
    assert refused_field(root, request_).fields == (field,)


@pytest.mark.parametrize(
    "request_",
    [
        create_key(display_name="Ünïcode ✓ \U0001f511", description="two\nlines\tand a tab"),
        create_key(permissions=["*", "a", "a.*", "latchgate.*", "A-b_c.D"]),
        create_key(ip_allowlist=allowlist("10.0.0.1", "::1", "2001:db8::/32", "0.0.0.0/0")),
        create_key(limits=[rate("a"), quota(0)]),
        create_key(claims=ParseDict({"": None, "a": {"": []}, "b": {}}, Struct())),
        create_plan(capabilities=["sso:saml", "api/v2", "a.b_c-d"], max_keys=2**31 - 1),
        list_keys(states=[1, 2, 3]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_well_formed_is_taken_however_odd(root: Admin, request_: Message) -> None:
    call(root, request_)


# How violations are told.


def test_all_that_is_wrong_with_a_request_is_told_at_once(root: Admin) -> None:
    request = create_key(display_name="\0", permissions=["a b", "c", "d e"], tags={"": ""})
    fields = ("key.display_name", "key.permissions[0]", "key.permissions[2]", "key.tags")
    assert refused_field(root, request).fields == fields


def test_of_very_many_violations_the_first_are_told_and_the_rest_counted(root: Admin) -> None:
    """All of them would not fit into the metadata that a gRPC client accepts, and it would tell of none."""
    refused = refused_field(root, create_key(permissions=["!"] * bounds.PERMISSIONS))
    assert refused.fields == tuple(f"key.permissions[{place}]" for place in range(bounds.VIOLATIONS))
    assert refused.message.endswith(f"; and {bounds.PERMISSIONS - bounds.VIOLATIONS} more")


@pytest.mark.parametrize("symbol", ["x", "\U0001f511", "\U000e0001"])
def test_what_was_sent_is_quoted_in_part_at_most(root: Admin, symbol: str) -> None:
    mask = FieldMask(paths=[symbol * 100_000])
    refused = refused_field(root, pb.UpdateKeyRequest(key=key_pb2.Key(key_id="x"), update_mask=mask))
    assert len(refused.descriptions[0]) < 500


def test_whoever_takes_the_key_string_for_the_key_id_does_not_find_it_in_the_answer(root: Admin, house: House) -> None:
    key_string = house.key().key_string
    refused = refused_field(root, pb.RevokeKeyRequest(key_id=key_string))
    assert refused.fields == ("key_id",)
    assert key_string.partition(".")[2] not in refused.message + refused.raw
