"""Lists of AdminService: their order, their pages, their filters, and the tokens that lead from page to page."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2
from latchgate_server.core import bounds
from tests.conformance.house import House
from tests.conformance.wire import refusal
from tests.support.server import Admin

MARCH, APRIL, MAY = (Timestamp(seconds=seconds) for seconds in (4_200_000_000, 4_202_000_000, 4_204_000_000))


def keys(admin: Admin, **filter_: Any) -> list[str]:
    """The ids of the keys that match, of one page that is large enough."""
    request = pb.ListKeysRequest(filter=pb.KeyFilter(**filter_), page_size=bounds.PAGE_SIZE)
    response = admin.ListKeys(request)
    assert response.next_page_token == ""
    return [key.key_id for key in response.keys]


def pages(fetch: Callable[[str], Any], field: str, name: str) -> list[list[str]]:
    """The names of the items of every page, to the last."""
    found, token = [], ""
    while True:
        response = fetch(token)
        found.append([str(getattr(item, name)) for item in getattr(response, field)])
        token = response.next_page_token
        if not token:
            return found


def flat(found: list[list[str]]) -> list[str]:
    return list(chain.from_iterable(found))


def execute(database_url: str, statement: str, *arguments: object) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(database_url)
        try:
            await connection.execute(statement, *arguments)
        finally:
            await connection.close()

    asyncio.run(run())


def refused_token(call: Callable[[], object]) -> bool:
    refused = refusal(call)
    return (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("page_token",))


# Pages.


@pytest.mark.parametrize(("size", "sizes"), [(1, [1] * 5), (2, [2, 2, 1]), (4, [4, 1]), (5, [5]), (6, [5]), (0, [5])])
def test_keys_come_newest_first_each_on_one_page(house: House, root: Admin, size: int, sizes: list[int]) -> None:
    tenant_id = house.tenant()
    made = [house.key(tenant_id).key.key_id for _ in range(5)]

    def fetch(token: str) -> object:
        filter_ = pb.KeyFilter(tenant_id=tenant_id)
        return root.ListKeys(pb.ListKeysRequest(filter=filter_, page_size=size, page_token=token))

    found = pages(fetch, "keys", "key_id")
    assert [len(page) for page in found] == sizes
    assert flat(found) == made[::-1]


def test_a_list_can_be_read_on_while_keys_come_and_go(house: House, root: Admin) -> None:
    tenant_id = house.tenant()
    made = [house.key(tenant_id).key.key_id for _ in range(4)]
    filter_ = pb.KeyFilter(tenant_id=tenant_id)
    first = root.ListKeys(pb.ListKeysRequest(filter=filter_, page_size=2))
    house.key(tenant_id)
    root.DeleteKey(pb.DeleteKeyRequest(key_id=made[2]))
    second = root.ListKeys(pb.ListKeysRequest(filter=filter_, page_size=2, page_token=first.next_page_token))
    assert [key.key_id for key in (*first.keys, *second.keys)] == made[::-1]


@pytest.mark.parametrize("field", ["expire_time", "rotate_by_time"])
def test_keys_that_are_asked_for_by_a_time_come_in_its_order_the_latest_first(
    house: House, root: Admin, field: str
) -> None:
    tenant_id = house.tenant()
    times = [MARCH, MAY, APRIL, MARCH, APRIL]
    made = [house.key(tenant_id, **{field: time}).key.key_id for time in times]
    house.key(tenant_id)
    asked = {"expire_time": "expires_before", "rotate_by_time": "rotation_due_before"}[field]

    def fetch(token: str) -> object:
        filter_ = pb.KeyFilter(tenant_id=tenant_id)
        getattr(filter_, asked).CopyFrom(MAY)
        return root.ListKeys(pb.ListKeysRequest(filter=filter_, page_size=2, page_token=token))

    found = pages(fetch, "keys", "key_id")
    assert found == [[made[4], made[2]], [made[3], made[0]]]


def test_the_size_of_a_page_may_change_from_page_to_page(house: House, root: Admin) -> None:
    tenant_id = house.tenant()
    made = [house.key(tenant_id).key.key_id for _ in range(4)]
    filter_ = pb.KeyFilter(tenant_id=tenant_id)
    first = root.ListKeys(pb.ListKeysRequest(filter=filter_, page_size=1))
    rest = root.ListKeys(pb.ListKeysRequest(filter=filter_, page_size=9, page_token=first.next_page_token))
    assert [key.key_id for key in (*first.keys, *rest.keys)] == made[::-1]


@pytest.mark.parametrize(
    ("asked", "given_"),
    [
        (0, bounds.PAGE_SIZE_DEFAULT),
        (bounds.PAGE_SIZE, bounds.PAGE_SIZE),
        (bounds.PAGE_SIZE + 1, bounds.PAGE_SIZE),
        (2**31 - 1, bounds.PAGE_SIZE),
    ],
)
def test_a_page_has_its_default_size_and_at_most_its_largest(
    house: House, root: Admin, module_database: str, asked: int, given_: int
) -> None:
    tenant_id = house.tenant()
    execute(
        module_database,
        "INSERT INTO roles (role_id, tenant_id, display_name, description, permissions, claims, allow_act_as)"
        " SELECT 'many-' || n, $1, '', '', '{}', '{}', false FROM generate_series(1, $2::int) AS n",
        tenant_id,
        bounds.PAGE_SIZE + 1,
    )
    response = root.ListRoles(pb.ListRolesRequest(tenant_id=tenant_id, page_size=asked))
    assert len(response.roles) == given_
    assert response.next_page_token


def test_tenants_and_plans_come_in_the_order_of_their_ids(house: House, root: Admin) -> None:
    made_tenants = [house.tenant() for _ in range(5)]
    made_plans = [house.plan() for _ in range(5)]
    listed_tenants = pages(
        lambda token: root.ListTenants(pb.ListTenantsRequest(page_size=2, page_token=token)), "tenants", "tenant_id"
    )
    listed_plans = pages(
        lambda token: root.ListPlans(pb.ListPlansRequest(page_size=2, page_token=token)), "plans", "plan_id"
    )
    for made, listed in ((made_tenants, flat(listed_tenants)), (made_plans, flat(listed_plans))):
        assert listed == sorted(set(listed))
        assert set(made) <= set(listed)


def test_roles_are_a_tenants_own_and_those_of_every_tenant_in_the_order_of_their_ids(house: House, root: Admin) -> None:
    tenant_id = house.tenant()
    own, shared, other = house.role(tenant_id), house.role(), house.role(house.tenant())
    listed = flat(
        pages(
            lambda token: root.ListRoles(pb.ListRolesRequest(tenant_id=tenant_id, page_size=1, page_token=token)),
            "roles",
            "role_id",
        )
    )
    assert listed == sorted(set(listed))
    assert {own, shared} <= set(listed)
    assert other not in listed
    assert own not in [role.role_id for role in root.ListRoles(pb.ListRolesRequest()).roles]
    admin = house.admin(tenant_id, "latchgate.roles.list")
    assert [role.role_id for role in admin.ListRoles(pb.ListRolesRequest()).roles] == listed


def test_an_empty_list_is_an_empty_page(house: House, root: Admin) -> None:
    response = root.ListKeys(pb.ListKeysRequest(filter=pb.KeyFilter(tenant_id=house.tenant())))
    assert (len(response.keys), response.next_page_token) == (0, "")


# Tokens.


@pytest.fixture(scope="module")
def token(house: House) -> tuple[str, str]:
    """A tenant of three keys, and the token for the second page of them."""
    tenant_id = house.tenant()
    for _ in range(3):
        house.key(tenant_id, owner="ada")
    return tenant_id, _token(house.root, pb.KeyFilter(tenant_id=tenant_id))


def _token(admin: Admin, filter_: pb.KeyFilter) -> str:
    issued = str(admin.ListKeys(pb.ListKeysRequest(filter=filter_, page_size=1)).next_page_token)
    assert issued
    return issued


def _next(admin: Admin, token: str, **filter_: Any) -> Callable[[], object]:
    request = pb.ListKeysRequest(filter=pb.KeyFilter(**filter_), page_size=1, page_token=token)
    return lambda: admin.ListKeys(request)


@given(st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_token_that_was_altered_is_refused(root: Admin, token: tuple[str, str], data: st.DataObject) -> None:
    tenant_id, issued = token
    place = data.draw(st.integers(0, len(issued) - 1))
    symbol = data.draw(st.characters(exclude_categories=["Cs"], exclude_characters=issued[place]))
    altered = issued[:place] + symbol + issued[place + 1 :]
    assert refused_token(_next(root, altered, tenant_id=tenant_id))


@pytest.mark.parametrize("form", ["{0}=", "{0}\n", " {0}", "!{0}", "{0}{0}", "x", "AAAA", "\u00e9", "\0", "=" * 8])
def test_a_token_in_another_form_is_refused(root: Admin, token: tuple[str, str], form: str) -> None:
    tenant_id, issued = token
    assert refused_token(_next(root, form.format(issued), tenant_id=tenant_id))


def test_a_token_does_not_tell_how_to_make_another(root: Admin, token: tuple[str, str]) -> None:
    tenant_id, issued = token
    raw = base64.urlsafe_b64decode(issued)
    position = int(raw[16:])
    forged = base64.urlsafe_b64encode(raw[:16] + str(position + 1).encode()).decode()
    assert refused_token(_next(root, forged, tenant_id=tenant_id))


def test_a_token_leads_on_only_in_the_list_that_it_was_given_for(
    house: House, root: Admin, token: tuple[str, str]
) -> None:
    tenant_id, issued = token
    assert not refused_by(_next(root, issued, tenant_id=tenant_id))
    others: Sequence[dict[str, Any]] = [
        {},
        {"tenant_id": house.tenant()},
        {"tenant_id": tenant_id, "owner": "ada"},
        {"tenant_id": tenant_id, "states": [key_pb2.Key.STATE_ACTIVE]},
        {"tenant_id": tenant_id, "search": "x"},
    ]
    for filter_ in others:
        assert refused_token(_next(root, issued, **filter_))
    assert refused_token(lambda: root.ListTenants(pb.ListTenantsRequest(page_token=issued)))
    assert refused_token(lambda: root.ListRoles(pb.ListRolesRequest(tenant_id=tenant_id, page_token=issued)))


def refused_by(call: Callable[[], object]) -> bool:
    try:
        call()
    except grpc.RpcError:
        return True
    return False


def test_a_token_leads_on_only_for_callers_who_see_the_same(house: House, root: Admin, token: tuple[str, str]) -> None:
    tenant_id, of_root = token
    admin = house.admin(tenant_id, "latchgate.keys.*")
    assert refused_token(_next(admin, of_root, tenant_id=tenant_id))
    issued = _token(admin, pb.KeyFilter())
    assert not refused_by(_next(house.admin(tenant_id, "latchgate.keys.list"), issued))
    assert refused_token(_next(house.admin(house.tenant(), "latchgate.keys.*"), issued))
    assert refused_token(_next(house.admin(tenant_id, "latchgate.keys.own", owner="ada"), issued))
    assert refused_token(_next(root, issued))


# Filters of keys.


def test_a_filter_by_each_field_finds_the_keys_that_match_and_no_others(house: House, root: Admin) -> None:
    tenant_id = house.tenant()
    role_id = house.role(tenant_id)

    def make(**fields: Any) -> str:
        return house.key(tenant_id, **fields).key.key_id

    plain = make()
    owned = make(owner="ada")
    with_role = make(role_ids=[role_id])
    production = make(environment="production")
    tagged, twice_tagged = make(tags={"team": "data"}), make(tags={"team": "data", "tier": "1"})
    disabled, revoked = make(), make()
    root.DisableKey(pb.DisableKeyRequest(key_id=disabled))
    root.RevokeKey(pb.RevokeKeyRequest(key_id=revoked))
    in_march, in_may = make(expire_time=MARCH), make(expire_time=MAY)
    due_in_march, due_in_may = make(rotate_by_time=MARCH), make(rotate_by_time=MAY)
    named, described = make(display_name="Nightly EXPORT"), make(description="for the export of 100%_\\ of orders")
    everyone = {plain, owned, with_role, production, tagged, twice_tagged, disabled, revoked, in_march, in_may}
    everyone |= {due_in_march, due_in_may, named, described}

    def found(**filter_: Any) -> set[str]:
        return set(keys(root, tenant_id=tenant_id, **filter_))

    state = key_pb2.Key.State
    assert found() == everyone
    assert found(owner="ada") == {owned}
    assert found(owner="Ada") == set()
    assert found(role_id=role_id) == {with_role}
    assert found(environment="production") == {production}
    assert found(tags={"team": "data"}) == {tagged, twice_tagged}
    assert found(tags={"tier": "1", "team": "data"}) == {twice_tagged}
    assert found(tags={"team": "Data"}) == set()
    assert found(states=[state.STATE_DISABLED]) == {disabled}
    assert found(states=[state.STATE_DISABLED, state.STATE_REVOKED, state.STATE_DISABLED]) == {disabled, revoked}
    assert found(expires_before=APRIL) == {in_march}
    assert found(expires_before=MARCH) == set()
    assert found(rotation_due_before=APRIL) == {due_in_march}
    assert found(search="export") == {named, described}
    assert found(search="100%_\\") == {described}
    assert found(search="1__%") == set()
    assert found(search=plain[:-3]) == {plain}
    assert found(search=plain[3:]) == set()
    assert found(states=[state.STATE_ACTIVE], search="export", owner="ada") == set()
