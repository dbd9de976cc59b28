"""What keys are used for, as administrators see it: counts, latest use, addresses, single uses; and who may see it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import audit_pb2, decision_pb2
from latchgate.v1.verify_service_pb2 import RequestInfo
from latchgate_server.core import bounds
from tests.conformance.house import House
from tests.conformance.wire import refusal
from tests.support.server import Admin, Verify

HOUR, DAY = Duration(seconds=3_600), Duration(seconds=86_400)


def ago(**parts: float) -> Timestamp:
    moment = Timestamp()
    moment.FromDatetime(datetime.now(UTC) - timedelta(**parts))
    return moment


def eventually(told: Callable[[], Any], expected: object, seconds: float = 15.0) -> None:
    """That it comes to this, about a second late."""
    deadline = time.monotonic() + seconds
    while (now := told()) != expected:
        assert time.monotonic() < deadline, f"{now!r} is not {expected!r}"
        time.sleep(0.05)


def usage(admin: Admin, length: Duration = HOUR, **subject: str) -> list[audit_pb2.UsageBucket]:
    request = pb.GetUsageRequest(start_time=ago(hours=1), bucket_length=length, **subject)  # type: ignore[arg-type]  # its fields
    return list(admin.GetUsage(request).buckets)


def counted(admin: Admin, **subject: str) -> tuple[int, dict[str, int]]:
    """What was allowed and denied, in all."""
    denied: dict[str, int] = {}
    buckets = usage(admin, HOUR, **subject)
    for bucket in buckets:
        for reason, count in bucket.denied.items():
            denied[reason] = denied.get(reason, 0) + count
    return sum(bucket.allowed for bucket in buckets), denied


def sources(admin: Admin, key_id: str) -> dict[str, int]:
    listed = admin.ListKeySources(pb.ListKeySourcesRequest(key_id=key_id, page_size=1_000)).sources
    return {source.client_ip: source.count for source in listed}


def uses(admin: Admin, key_id: str) -> list[audit_pb2.KeyUse]:
    return list(admin.ListKeyUses(pb.ListKeyUsesRequest(key_id=key_id)).uses)


def last_use(admin: Admin, key_id: str) -> Any:
    return admin.GetKey(pb.GetKeyRequest(key_id=key_id)).key.last_use


@dataclass(frozen=True)
class Used:
    tenant_id: str
    key_id: str
    key_string: str


@pytest.fixture
def key(house: House) -> Used:
    tenant_id = house.tenant()
    made = house.key(tenant_id, permissions=["orders.read"], owner="ann")
    return Used(tenant_id, made.key.key_id, made.key_string)


def test_decisions_are_counted_by_key_and_tenant_and_outcome(
    root: Admin, verify: Verify, house: House, key: Used
) -> None:
    other = house.key(key.tenant_id)
    for _ in range(3):
        verify(key.key_string)
    verify(key.key_string, required_permissions="orders.write")
    verify(key.key_string[:-1] + ("a" if key.key_string[-1] != "a" else "b"))
    verify(other.key_string)

    denied = {"INSUFFICIENT_PERMISSIONS": 1, "INVALID_SECRET": 1}
    eventually(lambda: counted(root, key_id=key.key_id), (3, denied))
    eventually(lambda: counted(root, tenant_id=key.tenant_id), (4, denied))
    assert counted(root, key_id=other.key.key_id) == (1, {})


def test_buckets_have_no_gaps_and_start_where_an_interval_does(root: Admin, verify: Verify, key: Used) -> None:
    verify(key.key_string)
    eventually(lambda: counted(root, key_id=key.key_id), (1, {}))
    end = Timestamp()
    end.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
    for length, start, most in ((HOUR, ago(hours=30), 32), (DAY, ago(days=7), 9)):
        request = pb.GetUsageRequest(key_id=key.key_id, start_time=start, end_time=end, bucket_length=length)
        buckets = root.GetUsage(request).buckets
        starts = [bucket.start_time.seconds for bucket in buckets]
        assert starts == list(range(starts[0], starts[0] + length.seconds * len(starts), length.seconds))
        assert starts[0] % length.seconds == 0
        assert starts[0] <= start.seconds < starts[0] + length.seconds
        assert len(buckets) in {most - 1, most}
        assert sum(bucket.allowed for bucket in buckets) == 1
        assert {bucket.length.seconds for bucket in buckets} == {length.seconds}


def test_the_latest_use_is_told_with_the_key(root: Admin, verify: Verify, key: Used) -> None:
    assert not root.GetKey(pb.GetKeyRequest(key_id=key.key_id)).key.HasField("last_use")
    began = time.time()
    verify(key.key_string, client_ip="198.51.100.1")
    verify(key.key_string, client_ip="::ffff:203.0.113.9", request=RequestInfo(user_agent="till/2.0"))
    eventually(lambda: last_use(root, key.key_id).client_ip, "203.0.113.9")
    told = last_use(root, key.key_id)
    assert (told.user, told.user_agent) == ("ann", "till/2.0")
    assert began - 1 <= told.time.seconds <= time.time() + 1
    listed = root.ListKeys(pb.ListKeysRequest(filter=pb.KeyFilter(tenant_id=key.tenant_id))).keys
    assert [each.last_use for each in listed] == [told]


def test_use_changes_neither_the_keys_etag_nor_its_audit_log(root: Admin, verify: Verify, key: Used) -> None:
    before = root.GetKey(pb.GetKeyRequest(key_id=key.key_id)).key
    verify(key.key_string)
    eventually(lambda: last_use(root, key.key_id).user, "ann")
    after = root.GetKey(pb.GetKeyRequest(key_id=key.key_id)).key
    assert (after.etag, after.update_time) == (before.etag, before.update_time)
    root.DisableKey(pb.DisableKeyRequest(key_id=key.key_id))
    event = root.ListAuditEvents(pb.ListAuditEventsRequest(target_id=key.key_id)).events[0]
    assert dict(event.before) == {"state": "ACTIVE"}
    assert dict(event.after) == {"state": "DISABLED"}


def test_single_uses_are_listed_newest_first_with_what_the_client_did(root: Admin, verify: Verify, key: Used) -> None:
    done = RequestInfo(method="GET", host="api.example.com", path="/v1/orders/17", user_agent="till/2.0")
    verify(key.key_string, client_ip="198.51.100.1", request=done)
    verify(key.key_string, client_ip="198.51.100.2", required_permissions="orders.write")
    eventually(lambda: len(uses(root, key.key_id)), 2)
    second, first = uses(root, key.key_id)
    assert (first.decision, first.denial_reason) == (decision_pb2.DECISION_ALLOW, 0)
    assert (first.client_ip, first.user) == ("198.51.100.1", "ann")
    assert (first.method, first.host, first.path, first.user_agent) == (
        "GET",
        "api.example.com",
        "/v1/orders/17",
        "till/2.0",
    )
    assert (second.decision, second.denial_reason, second.client_ip) == (
        decision_pb2.DECISION_DENY,
        decision_pb2.DENIAL_REASON_INSUFFICIENT_PERMISSIONS,
        "198.51.100.2",
    )
    assert first.time.ToNanoseconds() < second.time.ToNanoseconds()


def test_no_more_than_the_latest_uses_and_addresses_are_kept(root: Admin, verify: Verify, key: Used) -> None:
    for number in range(bounds.USES_PER_KEY + 30):
        verify(key.key_string, client_ip=f"10.0.0.{number}")
    last = f"10.0.0.{bounds.USES_PER_KEY + 29}"
    eventually(lambda: last_use(root, key.key_id).client_ip, last)
    listed = uses(root, key.key_id)
    assert len(listed) == bounds.USES_PER_KEY
    assert [use.client_ip for use in listed[:2]] == [last, f"10.0.0.{bounds.USES_PER_KEY + 28}"]
    expected = {f"10.0.0.{bounds.USES_PER_KEY + 29 - number}": 1 for number in range(bounds.SOURCES_PER_KEY)}
    assert sources(root, key.key_id) == expected


def test_addresses_are_counted_in_their_one_form_and_paged(root: Admin, verify: Verify, key: Used) -> None:
    for address in ("198.51.100.1", "2001:DB8:0::1", "::ffff:198.51.100.1", "2001:db8::1", "nowhere", ""):
        verify(key.key_string, client_ip=address)
    eventually(lambda: sources(root, key.key_id), {"2001:db8::1": 2, "198.51.100.1": 2})
    paged, token = [], ""
    while True:
        request = pb.ListKeySourcesRequest(key_id=key.key_id, page_size=1, page_token=token)
        page = root.ListKeySources(request)
        paged += [source.client_ip for source in page.sources]
        token = page.next_page_token
        if not token:
            break
    assert paged == ["2001:db8::1", "198.51.100.1"]
    first = root.ListKeySources(pb.ListKeySourcesRequest(key_id=key.key_id)).sources[0]
    assert first.first_use_time.ToNanoseconds() < first.last_use_time.ToNanoseconds()


def test_who_does_not_know_the_secret_leaves_a_count_and_nothing_else(root: Admin, verify: Verify, key: Used) -> None:
    wrong = f"{key.key_id}.{'x' * 49}"
    for number in range(20):
        verify(wrong, client_ip=f"10.0.0.{number}", request=RequestInfo(path="/x", user_agent="stranger"))
    eventually(lambda: counted(root, key_id=key.key_id), (0, {"INVALID_SECRET": 20}))
    assert sources(root, key.key_id) == {}
    assert uses(root, key.key_id) == []
    assert not root.GetKey(pb.GetKeyRequest(key_id=key.key_id)).key.HasField("last_use")


def test_a_description_of_a_request_is_cut_off_at_its_bound_and_cleaned(root: Admin, verify: Verify, key: Used) -> None:
    long = "x" * (bounds.REQUEST_INFO_LENGTH + 500)
    told = RequestInfo(method=long, host="a\0b\n", path=f"/orders?api_key={key.key_string}", user_agent=key.key_string)
    verify(key.key_string, request=told)
    verify(key.key_string, request=RequestInfo(path=f"/keys/{key.key_string}/x"))
    eventually(lambda: len(uses(root, key.key_id)), 2)
    second, first = uses(root, key.key_id)
    assert first.method == long[: bounds.REQUEST_INFO_LENGTH]
    assert first.host == "a�b�"
    assert first.path == "/orders"
    secret = key.key_string.partition(".")[2]
    assert all(secret not in str(use) for use in (first, second))


def test_an_administrators_own_calls_are_uses_of_its_key(house: House, root: Admin) -> None:
    admin = house.admin(tenant_id := house.tenant(), "latchgate.keys.list")
    keys = admin.ListKeys(pb.ListKeysRequest(filter=pb.KeyFilter(tenant_id=tenant_id))).keys
    eventually(lambda: counted(root, key_id=keys[0].key_id), (1, {}))


def test_keys_are_found_that_were_not_used_since(root: Admin, verify: Verify, house: House) -> None:
    tenant_id = house.tenant()
    before = ago(seconds=1)
    unused, used = house.key(tenant_id), house.key(tenant_id)
    between = ago(seconds=-0.01)
    time.sleep(0.1)
    verify(used.key_string)
    eventually(lambda: root.GetKey(pb.GetKeyRequest(key_id=used.key.key_id)).key.HasField("last_use"), True)

    def found(since: Timestamp, **fields: Any) -> list[str]:
        filter_ = pb.KeyFilter(tenant_id=tenant_id, unused_since=since, **fields)
        listed: list[str] = []
        token = ""
        while True:
            page = root.ListKeys(pb.ListKeysRequest(filter=filter_, page_size=1, page_token=token))
            listed += [key.key_id for key in page.keys]
            token = page.next_page_token
            if not token:
                return listed

    both = {unused.key.key_id, used.key.key_id}
    assert found(before) == []
    assert found(between) == [unused.key.key_id]
    assert set(found(ago(hours=-1))) == both
    assert set(found(ago(hours=-1), search="lg_")) == both
    assert found(ago(hours=-1), owner="nobody") == []
    assert (
        root.BatchRevokeKeys(
            pb.BatchRevokeKeysRequest(filter=pb.KeyFilter(tenant_id=tenant_id, unused_since=between), dry_run=True)
        ).revoked
        == 1
    )


# Who may look.


def test_another_tenants_usage_does_not_exist(house: House, key: Used) -> None:
    other = house.tenant()
    admin = house.admin(other, "*", "latchgate.*")
    missing = f"{key.key_id[:-1]}x"
    calls: list[Callable[[str], object]] = [
        lambda key_id: usage(admin, key_id=key_id),
        lambda key_id: uses(admin, key_id),
        lambda key_id: sources(admin, key_id),
        lambda key_id: admin.GetRotation(pb.GetRotationRequest(key_id=key_id)),
    ]
    for call in calls:
        elsewhere, nowhere = refusal(lambda call=call: call(key.key_id)), refusal(lambda call=call: call(missing))
        assert elsewhere.code == nowhere.code == grpc.StatusCode.NOT_FOUND
        assert elsewhere.message.replace(key.key_id, "ID") == nowhere.message.replace(missing, "ID")
    elsewhere, nowhere = (
        refusal(lambda: usage(admin, tenant_id=key.tenant_id)),
        refusal(lambda: usage(admin, tenant_id="nobody")),
    )
    assert elsewhere.code == grpc.StatusCode.NOT_FOUND
    assert elsewhere.message.replace(key.tenant_id, "ID") == nowhere.message.replace("nobody", "ID")
    assert usage(admin, tenant_id=other)


def test_who_manages_its_own_keys_sees_their_uses_alone(house: House, key: Used) -> None:
    own = house.admin(key.tenant_id, "latchgate.keys.own", owner="ann")
    other = house.admin(key.tenant_id, "latchgate.keys.own", owner="bob")
    assert uses(own, key.key_id) == []
    assert sources(own, key.key_id) == {}
    assert refusal(lambda: uses(other, key.key_id)).code == grpc.StatusCode.NOT_FOUND
    assert refusal(lambda: sources(other, key.key_id)).code == grpc.StatusCode.NOT_FOUND
    assert refusal(lambda: usage(own, key_id=key.key_id)).code == grpc.StatusCode.PERMISSION_DENIED


def test_the_usage_of_a_key_goes_with_it(root: Admin, verify: Verify, key: Used) -> None:
    verify(key.key_string)
    eventually(lambda: counted(root, key_id=key.key_id), (1, {}))
    root.DeleteKey(pb.DeleteKeyRequest(key_id=key.key_id))
    assert refusal(lambda: usage(root, key_id=key.key_id)).code == grpc.StatusCode.NOT_FOUND
    assert refusal(lambda: uses(root, key.key_id)).code == grpc.StatusCode.NOT_FOUND
    assert counted(root, tenant_id=key.tenant_id) == (1, {}), "what the tenant used is still true"


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"start_time": ago(hours=1), "bucket_length": HOUR}, "subject"),
        ({"key_id": "", "start_time": ago(hours=1), "bucket_length": HOUR}, "key_id"),
        ({"tenant_id": "A", "start_time": ago(hours=1), "bucket_length": HOUR}, "tenant_id"),
        ({"tenant_id": "a", "bucket_length": HOUR}, "start_time"),
        ({"tenant_id": "a", "start_time": ago(hours=1)}, "bucket_length"),
        ({"tenant_id": "a", "start_time": ago(hours=1), "bucket_length": Duration(seconds=60)}, "bucket_length"),
        ({"tenant_id": "a", "start_time": ago(hours=-1), "bucket_length": HOUR}, "end_time"),
        ({"tenant_id": "a", "start_time": ago(hours=bounds.USAGE_BUCKETS), "bucket_length": HOUR}, "start_time"),
        ({"tenant_id": "a", "start_time": Timestamp(seconds=-(10**12)), "bucket_length": HOUR}, "start_time"),
    ],
)
def test_what_is_malformed_is_named(root: Admin, fields: dict[str, Any], wrong: str) -> None:
    refused = refusal(lambda: root.GetUsage(pb.GetUsageRequest(**fields)))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (wrong,))


def test_page_tokens_of_addresses_are_bound_to_their_key(root: Admin, verify: Verify, house: House, key: Used) -> None:
    for address in ("198.51.100.1", "198.51.100.2"):
        verify(key.key_string, client_ip=address)
    eventually(lambda: len(sources(root, key.key_id)), 2)
    token = root.ListKeySources(pb.ListKeySourcesRequest(key_id=key.key_id, page_size=1)).next_page_token
    other = house.key(key.tenant_id).key.key_id
    refused = refusal(lambda: root.ListKeySources(pb.ListKeySourcesRequest(key_id=other, page_token=token)))
    assert refused.fields == ("page_token",)
