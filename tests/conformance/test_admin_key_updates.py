"""UpdateKey: which fields a change names, on which state of the key it is made, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2
from tests.conformance.house import House
from tests.conformance.sample_keys import (
    OUTPUT_ONLY,
    chosen,
    everything,
    read,
    update,
)
from tests.conformance.wire import refusal
from tests.support.server import Admin

FIELDS = sorted({field.name for field in key_pb2.Key.DESCRIPTOR.fields} - OUTPUT_ONLY - {"tenant_id"})
PATHS = [*FIELDS, "ip_allowlist.enabled", "ip_allowlist.ranges"]

# Which fields.


@pytest.mark.parametrize("path", PATHS)
def test_a_field_in_the_mask_is_set_and_no_other(root: Admin, house: House, path: str) -> None:
    tenant_id = house.tenant()
    full = everything(tenant_id, house.role(tenant_id))
    before = house.key(tenant_id).key
    expected = chosen(before)
    if path.startswith("ip_allowlist."):
        leaf = path.partition(".")[2]
        expected.ip_allowlist.MergeFrom(key_pb2.IpAllowlist(**{leaf: getattr(full.ip_allowlist, leaf)}))
    else:
        expected.MergeFrom(key_pb2.Key(**{path: getattr(full, path)}))
    full.key_id = before.key_id
    after = root.UpdateKey(pb.UpdateKeyRequest(key=full, update_mask=FieldMask(paths=[path]))).key
    assert chosen(after) == expected
    assert after.etag != before.etag
    assert read(root, before.key_id) == after


@pytest.mark.parametrize("path", PATHS)
def test_a_field_in_the_mask_that_is_not_set_is_cleared_and_no_other(root: Admin, house: House, path: str) -> None:
    tenant_id = house.tenant()
    before = root.CreateKey(pb.CreateKeyRequest(key=everything(tenant_id, house.role(tenant_id)))).key
    expected = chosen(before)
    if path.startswith("ip_allowlist."):
        expected.ip_allowlist.ClearField(path.partition(".")[2])  # type: ignore[arg-type]  # a field's name
    else:
        expected.ClearField(path)  # type: ignore[arg-type]  # likewise
    assert chosen(update(root, before.key_id, path)) == expected


def test_without_a_mask_every_field_that_is_set_is_changed(root: Admin, house: House) -> None:
    tenant_id = house.tenant()
    before = root.CreateKey(pb.CreateKeyRequest(key=everything(tenant_id, house.role(tenant_id)))).key
    after = update(root, before.key_id, display_name="renamed", permissions=["a"])
    expected = chosen(before)
    expected.display_name = "renamed"
    expected.permissions[:] = ["a"]
    assert chosen(after) == expected


def test_a_key_that_was_read_can_be_sent_back_whole(root: Admin, house: House) -> None:
    tenant_id = house.tenant()
    key = root.CreateKey(pb.CreateKeyRequest(key=everything(tenant_id, house.role(tenant_id)))).key
    same = root.UpdateKey(pb.UpdateKeyRequest(key=key))
    assert same.key == key, "nothing was changed, so neither were etag and update_time"
    key.display_name = "renamed"
    assert root.UpdateKey(pb.UpdateKeyRequest(key=key)).key.display_name == "renamed"


def test_a_star_in_the_mask_is_all_that_can_be_changed(root: Admin, house: House) -> None:
    tenant_id = house.tenant()
    before = root.CreateKey(pb.CreateKeyRequest(key=everything(tenant_id, house.role(tenant_id)))).key
    after = update(root, before.key_id, "*", display_name="alone")
    assert chosen(after) == key_pb2.Key(tenant_id=tenant_id, display_name="alone")


def test_an_empty_mask_changes_nothing(root: Admin, house: House) -> None:
    before = house.key().key
    request = pb.UpdateKeyRequest(key=key_pb2.Key(key_id=before.key_id, display_name="x"), update_mask=FieldMask())
    assert root.UpdateKey(request).key == before


@pytest.mark.parametrize("path", ["", "nothing", "Key", "tags.team", "claims.fields", "expire_time.seconds", "**"])
@pytest.mark.parametrize("and_path", [[], ["display_name"], ["*"]])
def test_an_unknown_path_in_the_mask_is_refused_and_nothing_is_changed(
    root: Admin, house: House, path: str, and_path: list[str]
) -> None:
    before = house.key().key
    refused = refusal(lambda: update(root, before.key_id, *and_path, path, display_name="x"))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("update_mask",))
    assert repr(path) in refused.descriptions[0]
    assert read(root, before.key_id) == before


@pytest.mark.parametrize("path", sorted(OUTPUT_ONLY | {"tenant_id"}))
def test_what_the_server_decides_cannot_be_named_in_the_mask(root: Admin, house: House, path: str) -> None:
    before = house.key().key
    refused = refusal(lambda: update(root, before.key_id, path))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("update_mask",))


def test_a_role_that_the_tenant_cannot_use_is_not_found(root: Admin, house: House) -> None:
    elsewhere = house.role(house.tenant())
    before = house.key().key
    for role_id in (elsewhere, "nothing"):
        refused = refusal(update, root, before.key_id, role_ids=[role_id])
        assert (refused.code, refused.metadata) == (grpc.StatusCode.NOT_FOUND, {"type": "role", "id": role_id})
    assert read(root, before.key_id) == before


# On which state.


def test_an_update_with_the_current_etag_is_made_and_one_with_another_is_not(root: Admin, house: House) -> None:
    first = house.key().key
    second = update(root, first.key_id, etag=first.etag, display_name="second")
    refused = refusal(lambda: update(root, first.key_id, etag=first.etag, display_name="third"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert refused.metadata == {"type": "key", "id": first.key_id}
    assert read(root, first.key_id) == second
    assert update(root, first.key_id, display_name="fourth").display_name == "fourth", "no etag: whatever is there"


def test_the_etag_changes_with_every_change_and_the_times_with_it(root: Admin, house: House) -> None:
    key = house.key().key
    seen = [(key.etag, key.update_time.ToNanoseconds())]
    steps: list[Callable[[], Any]] = [
        lambda: update(root, key.key_id, display_name="x"),
        lambda: root.DisableKey(pb.DisableKeyRequest(key_id=key.key_id)),
        lambda: root.EnableKey(pb.EnableKeyRequest(key_id=key.key_id)),
        lambda: root.ExpireKey(pb.ExpireKeyRequest(key_id=key.key_id)),
        lambda: root.RevokeKey(pb.RevokeKeyRequest(key_id=key.key_id)),
    ]
    for step in steps:
        step()
        now = read(root, key.key_id)
        assert now.create_time == key.create_time
        seen.append((now.etag, now.update_time.ToNanoseconds()))
    assert len({etag for etag, _ in seen}) == len(seen)
    assert seen == sorted(seen, key=lambda pair: pair[1])


@pytest.mark.parametrize("path", FIELDS)
def test_of_a_revoked_key_only_the_words_for_people_change(root: Admin, house: House, path: str) -> None:
    tenant_id = house.tenant()
    full = everything(tenant_id, house.role(tenant_id))
    key = house.key(tenant_id).key
    root.RevokeKey(pb.RevokeKeyRequest(key_id=key.key_id))
    full.key_id = key.key_id
    request = pb.UpdateKeyRequest(key=full, update_mask=FieldMask(paths=[path]))
    if path in {"display_name", "description", "tags"}:
        after = root.UpdateKey(request).key
        assert getattr(after, path) == getattr(full, path)
        assert after.state == key_pb2.Key.STATE_REVOKED
    else:
        refused = refusal(lambda: root.UpdateKey(request))
        assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION")
        assert refused.metadata == {"state": "REVOKED"}
