"""The life of a key through AdminService: its making, its states, its expiry, its end."""

from __future__ import annotations

import re
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import decision_pb2, key_pb2
from tests.conformance.house import House
from tests.conformance.sample_keys import (
    EARLIER,
    LATER,
    chosen,
    everything,
    is_recent,
    read,
    update,
)
from tests.conformance.wire import Refusal, code_of, refusal
from tests.support.server import Admin, Verify

KEY_STRING = re.compile(r"[a-z][a-z0-9_]{0,31}_[0-9A-Za-z]{22}\.[0-9A-Za-z]{49}")


# Making.


def test_a_key_is_stored_as_asked_for_and_with_what_the_server_adds(root: Admin, house: House, root_key: str) -> None:
    tenant_id = house.tenant()
    asked = everything(tenant_id, house.role(tenant_id))
    made = root.CreateKey(pb.CreateKeyRequest(key=asked))
    assert chosen(made.key) == asked
    assert KEY_STRING.fullmatch(made.key_string)
    assert made.key_string.startswith(f"{made.key.key_id}.")
    assert made.key.key_id.startswith("lg_")
    assert made.key.state == key_pb2.Key.STATE_ACTIVE
    assert not made.key.expired
    assert made.key.created_by == root_key.partition(".")[0]
    assert is_recent(made.key.create_time)
    assert is_recent(made.key.update_time)
    assert made.key.etag
    assert made.propagation.revision > 0
    assert read(root, made.key.key_id) == made.key


def test_what_the_server_decides_cannot_be_asked_for(root: Admin, house: House) -> None:
    asked = key_pb2.Key(
        tenant_id=house.tenant(),
        key_id="lg_mine",
        state=key_pb2.Key.STATE_REVOKED,
        expired=True,
        create_time=EARLIER,
        created_by="me",
        update_time=EARLIER,
        revoke_time=EARLIER,
        revocation_reason="x",
        last_use=key_pb2.LastUse(user="x"),
        predecessor_key_id="x",
        successor_key_id="x",
        etag="x",
    )
    key = root.CreateKey(pb.CreateKeyRequest(key=asked)).key
    assert key.key_id != "lg_mine"
    assert key.state == key_pb2.Key.STATE_ACTIVE
    assert not key.expired
    assert is_recent(key.create_time)
    assert key.created_by != "me"
    assert not key.HasField("revoke_time")
    assert not key.HasField("last_use")
    assert (key.revocation_reason, key.predecessor_key_id, key.successor_key_id) == ("", "", "")
    assert key.etag != "x"


def test_every_key_has_an_id_and_a_secret_of_its_own(house: House) -> None:
    tenant_id = house.tenant()
    strings = [house.key(tenant_id).key_string for _ in range(20)]
    assert len({string.partition(".")[0] for string in strings}) == 20
    assert len({string.partition(".")[2] for string in strings}) == 20


def test_the_key_string_is_told_once(root: Admin, house: House) -> None:
    made = house.key()
    secret = made.key_string.partition(".")[2]
    listed = root.ListKeys(pb.ListKeysRequest(filter=pb.KeyFilter(tenant_id=made.key.tenant_id)))
    assert secret not in str(made.key) + str(read(root, made.key.key_id)) + str(listed)


@pytest.mark.parametrize("prefix", ["acme", "acme_live", "x", "x" * 32])
def test_a_prefix_leads_the_key_id(root: Admin, verify: Verify, house: House, prefix: str) -> None:
    made = root.CreateKey(pb.CreateKeyRequest(key=key_pb2.Key(tenant_id=house.tenant()), prefix=prefix))
    assert made.key.key_id.startswith(f"{prefix}_")
    assert KEY_STRING.fullmatch(made.key_string)
    assert verify(made.key_string).decision == decision_pb2.DECISION_ALLOW


def test_a_key_created_with_a_time_that_has_passed_is_expired(root: Admin, verify: Verify, house: House) -> None:
    made = house.key(expire_time=EARLIER)
    assert made.key.expired
    assert made.key.expire_time == EARLIER
    assert verify(made.key_string).denial_reason == decision_pb2.DENIAL_REASON_API_KEY_EXPIRED


def test_roles_and_permissions_are_stored_once_each(house: House) -> None:
    tenant_id = house.tenant()
    role_id = house.role(tenant_id)
    key = house.key(tenant_id, role_ids=[role_id, role_id], permissions=["b", "a", "b"], resources=["x", "x"]).key
    assert key.role_ids == [role_id]
    assert key.permissions == ["b", "a"]
    assert key.resources == ["x"]


# The id of the request.


def test_a_repeated_request_creates_nothing_and_returns_the_first_key_without_its_key_string(
    root: Admin, house: House
) -> None:
    tenant_id, request_id = house.tenant(), str(uuid.uuid4())
    key = key_pb2.Key(tenant_id=tenant_id, display_name="first", expire_time=LATER, tags={"b": "2", "a": "1"})
    first = root.CreateKey(pb.CreateKeyRequest(key=key, request_id=request_id))
    # As a command that is given again sends it: in its own order, its times reckoned from another now.
    key.tags.clear()
    key.tags.update({"a": "1", "b": "2"})
    key.expire_time.seconds += 1
    again = root.CreateKey(pb.CreateKeyRequest(key=key, request_id=request_id.upper()))
    assert again.key == first.key
    assert again.key_string == ""
    assert again.propagation.revision >= first.propagation.revision
    assert len(root.ListKeys(pb.ListKeysRequest(filter=pb.KeyFilter(tenant_id=tenant_id))).keys) == 1


def test_another_administrators_request_of_the_same_id_is_another_request(root: Admin, house: House) -> None:
    tenant_id, request_id = house.tenant(), str(uuid.uuid4())
    other = house.admin(tenant_id, "latchgate.keys.create")
    request = pb.CreateKeyRequest(key=key_pb2.Key(tenant_id=tenant_id), request_id=request_id)
    assert root.CreateKey(request).key.key_id != other.CreateKey(request).key.key_id


def test_a_repeated_request_tells_the_key_as_it_is_now_and_not_found_once_it_is_deleted(
    root: Admin, house: House
) -> None:
    request = pb.CreateKeyRequest(key=key_pb2.Key(tenant_id=house.tenant()), request_id=str(uuid.uuid4()))
    key_id = root.CreateKey(request).key.key_id
    root.DisableKey(pb.DisableKeyRequest(key_id=key_id))
    assert root.CreateKey(request).key.state == key_pb2.Key.STATE_DISABLED
    root.DeleteKey(pb.DeleteKeyRequest(key_id=key_id))
    refused = refusal(lambda: root.CreateKey(request))
    assert (refused.code, refused.metadata) == (grpc.StatusCode.NOT_FOUND, {"type": "key", "id": key_id})


def test_a_request_that_failed_may_be_repeated_for_good(root: Admin, house: House) -> None:
    tenant_id, request_id = house.tenant(), str(uuid.uuid4())
    wrong = pb.CreateKeyRequest(key=key_pb2.Key(tenant_id=tenant_id, role_ids=["nothing"]), request_id=request_id)
    assert code_of(lambda: root.CreateKey(wrong)) == grpc.StatusCode.NOT_FOUND
    assert root.CreateKey(pb.CreateKeyRequest(key=key_pb2.Key(tenant_id=tenant_id), request_id=request_id)).key_string


# States.


def act(admin: Admin, action: str, key_id: str) -> key_pb2.Key | None:
    """What the action leaves of the key."""
    response = getattr(admin, f"{action}Key")(getattr(pb, f"{action}KeyRequest")(key_id=key_id))
    return None if action == "Delete" else response.key


def in_state(house: House, state: str) -> key_pb2.Key:
    """A new key in that state."""
    key = house.key().key
    for action in {"ACTIVE": [], "DISABLED": ["Disable"], "REVOKED": ["Revoke"], "EXPIRED": ["Expire"]}[state]:
        changed = act(house.root, action, key.key_id)
        assert changed is not None
        key = changed
    return key


def illegal(refused: Refusal, state: str) -> bool:
    return (refused.code, refused.reason, refused.metadata) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "ILLEGAL_TRANSITION",
        {"state": state},
    )


@pytest.mark.parametrize(
    ("state", "action", "after"),
    [
        ("ACTIVE", "Enable", "ACTIVE"),
        ("ACTIVE", "Disable", "DISABLED"),
        ("ACTIVE", "Revoke", "REVOKED"),
        ("DISABLED", "Enable", "ACTIVE"),
        ("DISABLED", "Disable", "DISABLED"),
        ("DISABLED", "Revoke", "REVOKED"),
        ("REVOKED", "Revoke", "REVOKED"),
        ("EXPIRED", "Enable", "ACTIVE"),
        ("EXPIRED", "Disable", "DISABLED"),
        ("EXPIRED", "Revoke", "REVOKED"),
    ],
)
def test_a_state_changes_as_documented(root: Admin, house: House, state: str, action: str, after: str) -> None:
    before = in_state(house, state)
    changed = act(root, action, before.key_id)
    assert changed is not None
    assert key_pb2.Key.State.Name(changed.state) == f"STATE_{after}"
    assert changed.expired == before.expired, "expiry is apart from the state"
    if state == after:
        assert changed == before, "what changes nothing leaves the etag and the times as they are"


@pytest.mark.parametrize("state", ["ACTIVE", "DISABLED", "EXPIRED"])
def test_a_key_that_is_not_revoked_can_be_expired(root: Admin, house: House, state: str) -> None:
    before = in_state(house, state)
    changed = act(root, "Expire", before.key_id)
    assert changed is not None
    assert changed.expired
    assert is_recent(changed.expire_time)
    assert changed.state == before.state


@pytest.mark.parametrize("action", ["Enable", "Disable", "Expire"])
def test_a_revoked_key_is_off_for_good(root: Admin, house: House, action: str) -> None:
    key = in_state(house, "REVOKED")
    assert illegal(refusal(lambda: act(root, action, key.key_id)), "REVOKED")
    assert read(root, key.key_id) == key


@pytest.mark.parametrize("state", ["ACTIVE", "DISABLED", "REVOKED", "EXPIRED"])
def test_a_key_can_be_deleted_in_every_state_and_is_gone(root: Admin, house: House, state: str) -> None:
    key_id = in_state(house, state).key_id
    act(root, "Delete", key_id)
    for action in ("Get", "Enable", "Disable", "Expire", "Revoke", "Delete"):
        refused = refusal(act, root, action, key_id)
        assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
        assert refused.metadata == {"type": "key", "id": key_id}
    assert code_of(lambda: update(root, key_id, display_name="x")) == grpc.StatusCode.NOT_FOUND


def test_a_revocation_is_told_with_its_time_and_reason_and_the_first_one_counts(root: Admin, house: House) -> None:
    key_id = house.key().key.key_id
    first = root.RevokeKey(pb.RevokeKeyRequest(key_id=key_id, reason="leaked")).key
    assert is_recent(first.revoke_time)
    assert first.revocation_reason == "leaked"
    assert root.RevokeKey(pb.RevokeKeyRequest(key_id=key_id, reason="again")).key == first


# Expiry.


def test_expiring_is_undone_by_a_later_date_or_by_none(root: Admin, verify: Verify, house: House) -> None:
    made = house.key()
    for expire_time in (LATER, None):
        assert root.ExpireKey(pb.ExpireKeyRequest(key_id=made.key.key_id)).key.expired
        assert verify(made.key_string).denial_reason == decision_pb2.DENIAL_REASON_API_KEY_EXPIRED
        assert not update(root, made.key.key_id, "expire_time", expire_time=expire_time).expired
        assert verify(made.key_string).decision == decision_pb2.DECISION_ALLOW


def test_expiring_an_expired_key_leaves_the_time_at_which_it_expired(root: Admin, house: House) -> None:
    key = house.key(expire_time=EARLIER).key
    assert root.ExpireKey(pb.ExpireKeyRequest(key_id=key.key_id)).key.expire_time == EARLIER


def test_expiring_never_makes_a_key_live_longer(root: Admin, house: House) -> None:
    key = house.key(expire_time=LATER).key
    expired = root.ExpireKey(pb.ExpireKeyRequest(key_id=key.key_id)).key
    assert is_recent(expired.expire_time)


def test_an_update_to_a_time_that_has_passed_expires_the_key(root: Admin, verify: Verify, house: House) -> None:
    made = house.key()
    assert update(root, made.key.key_id, expire_time=EARLIER).expired
    assert verify(made.key_string).denial_reason == decision_pb2.DENIAL_REASON_API_KEY_EXPIRED
    assert update(root, made.key.key_id, display_name="x").expired, "another change does not undo it"


# The plan's max_keys.


def limit_reached(refused: Refusal, limit: int) -> bool:
    return (refused.code, refused.reason, refused.metadata) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "KEY_LIMIT_REACHED",
        {"limit": str(limit)},
    )


def test_a_tenant_has_as_many_keys_as_its_plan_allows_not_counting_revoked_and_deleted_ones(
    root: Admin, house: House
) -> None:
    tenant_id = house.tenant(plan_id=house.plan(max_keys=2))
    first, second = house.key(tenant_id).key, house.key(tenant_id, expire_time=EARLIER).key
    root.DisableKey(pb.DisableKeyRequest(key_id=first.key_id))
    assert limit_reached(refusal(lambda: house.key(tenant_id)), 2)
    root.RevokeKey(pb.RevokeKeyRequest(key_id=first.key_id))
    third = house.key(tenant_id).key
    assert limit_reached(refusal(lambda: house.key(tenant_id)), 2)
    root.DeleteKey(pb.DeleteKeyRequest(key_id=second.key_id))
    house.key(tenant_id)
    assert limit_reached(refusal(lambda: house.key(tenant_id)), 2)
    assert read(root, third.key_id).state == key_pb2.Key.STATE_ACTIVE


def test_of_many_keys_created_at_once_exactly_as_many_are_made_as_the_plan_allows(root: Admin, house: House) -> None:
    tenant_id = house.tenant(plan_id=house.plan(max_keys=3))
    house.key(tenant_id)
    request = pb.CreateKeyRequest(key=key_pb2.Key(tenant_id=tenant_id))
    with ThreadPoolExecutor(8) as threads:
        codes = Counter(threads.map(lambda _: code_of(root.CreateKey, request), range(24)))
    assert codes == {grpc.StatusCode.OK: 2, grpc.StatusCode.RESOURCE_EXHAUSTED: 22}
    assert len(root.ListKeys(pb.ListKeysRequest(filter=pb.KeyFilter(tenant_id=tenant_id))).keys) == 3


def test_a_plan_without_max_keys_limits_nothing(house: House) -> None:
    tenant_id = house.tenant(plan_id=house.plan(max_keys=0))
    for _ in range(5):
        house.key(tenant_id)
