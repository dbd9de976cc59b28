"""Rate limits and quotas, through the network: what they let through, what they tell, and how they are set back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import decision_pb2, key_pb2, verify_service_pb2
from latchgate.v1.decision_pb2 import LimitStatus
from tests.conformance.house import House
from tests.conformance.wire import refusal
from tests.support.server import PATIENT, ServerProcess, Verify
from tests.support.valkey import valkey_server
from tests.support.valkey_cluster import running_cluster

ALLOW, DENY = decision_pb2.DECISION_ALLOW, decision_pb2.DECISION_DENY
RATE_LIMITED, QUOTA_EXCEEDED = decision_pb2.DENIAL_REASON_RATE_LIMITED, decision_pb2.DENIAL_REASON_QUOTA_EXCEEDED


def rate(name: str, limit: int, seconds: int = 3600, burst: int = 0) -> key_pb2.Limit:
    period = Duration(seconds=seconds)
    return key_pb2.Limit(name=name, rate_limit=key_pb2.RateLimit(limit=limit, period=period, burst=burst))


def quota(name: str, limit: int, period: Any = key_pb2.Quota.PERIOD_LIFETIME) -> key_pb2.Limit:
    return key_pb2.Limit(name=name, quota=key_pb2.Quota(limit=limit, period=period))


def reasons(verify: Verify, key: str, times: int, **fields: Any) -> list[int]:
    return [verify(key, **fields).denial_reason for _ in range(times)]


def _with_another_secret(key_string: str) -> str:
    return key_string[:-1] + ("x" if key_string[-1] != "x" else "y")


def remaining(response: verify_service_pb2.VerifyResponse) -> dict[str, int]:
    return {status.name: status.remaining for status in response.limits}


@pytest.fixture(scope="module", params=["memory", "valkey", "cluster"])
def limit_store(request: pytest.FixtureRequest) -> Iterator[str]:
    match request.param:
        case "memory":
            yield "memory"
        case "valkey":
            with valkey_server() as valkey:
                yield valkey.connection_url
        case _:
            with running_cluster() as cluster:
                yield cluster.address()


@pytest.fixture(scope="module")
def server(module_database: str, transport: str, limit_store: str) -> Iterator[ServerProcess]:
    settings = {"transport": transport, "limit_store": limit_store, "limit_store_timeout": PATIENT}
    with ServerProcess(module_database, settings) as process:
        yield process


@pytest.fixture(params=[rate, quota])
def limit(request: pytest.FixtureRequest) -> Any:
    return request.param


def denial_of(limit: Any) -> int:
    return RATE_LIMITED if limit is rate else QUOTA_EXCEEDED


# What a limit lets through.


def test_a_key_is_let_through_as_often_as_its_limit_says_and_no_more(house: House, verify: Verify, limit: Any) -> None:
    key = house.key(limits=[limit("calls", 3)]).key_string
    assert reasons(verify, key, 5) == [0, 0, 0, denial_of(limit), denial_of(limit)]


def test_all_keys_of_a_tenant_share_its_limit(house: House, verify: Verify, limit: Any) -> None:
    tenant = house.tenant(limits=[limit("calls", 3)])
    keys = [house.key(tenant).key_string for _ in range(2)]
    assert reasons(verify, keys[0], 2) == [0, 0]
    assert reasons(verify, keys[1], 2) == [0, denial_of(limit)]
    other = house.key().key_string
    assert reasons(verify, other, 1) == [0]


def test_a_plan_gives_its_limits_to_every_key_and_to_the_tenant(house: House, verify: Verify, limit: Any) -> None:
    plan = house.plan(key_limits=[limit("each", 2)], tenant_limits=[limit("all", 3)])
    tenant = house.tenant(plan_id=plan)
    first, second = (house.key(tenant).key_string for _ in range(2))
    assert reasons(verify, first, 3) == [0, 0, denial_of(limit)]
    assert reasons(verify, second, 2) == [0, denial_of(limit)]


def test_a_keys_own_limit_goes_over_the_plans_of_the_same_name(house: House, verify: Verify, limit: Any) -> None:
    tenant = house.tenant(plan_id=house.plan(key_limits=[limit("calls", 5)]))
    assert reasons(verify, house.key(tenant, limits=[limit("calls", 1)]).key_string, 2) == [0, denial_of(limit)]


def test_rotating_refills_nothing(house: House, verify: Verify, limit: Any) -> None:
    key = house.key(limits=[limit("calls", 3)])
    assert reasons(verify, key.key_string, 2) == [0, 0]
    grace = Duration(seconds=600)
    successor = house.root.RotateKey(pb.RotateKeyRequest(key_id=key.key.key_id, grace_period=grace))
    assert reasons(verify, successor.key_string, 2) == [0, denial_of(limit)]
    assert reasons(verify, key.key_string, 1) == [denial_of(limit)]


def test_a_rate_limit_refills_steadily_up_to_its_burst(house: House, verify: Verify) -> None:
    key = house.key(limits=[rate("calls", 20, seconds=1, burst=4)]).key_string
    assert reasons(verify, key, 4) == [0, 0, 0, 0]
    time.sleep(0.11)
    assert reasons(verify, key, 2) == [0, 0]
    time.sleep(0.6)
    assert verify(key, cost=5).denial_reason == RATE_LIMITED
    assert verify(key, cost=4).decision == ALLOW


# What a call takes.


def test_a_call_takes_its_cost(house: House, verify: Verify, limit: Any) -> None:
    key = house.key(limits=[limit("calls", 10)]).key_string
    assert reasons(verify, key, 3, cost=4) == [0, 0, denial_of(limit)]
    assert remaining(verify(key, cost=2)) == {"calls": 0}


def test_a_cost_of_zero_only_looks(house: House, verify: Verify, limit: Any) -> None:
    key = house.key(limits=[limit("calls", 1)]).key_string
    looks = [verify(key, cost=0) for _ in range(3)]
    assert [(look.decision, remaining(look)) for look in looks] == [(ALLOW, {"calls": 1})] * 3
    assert verify(key).decision == ALLOW
    spent = verify(key, cost=0)
    assert (spent.denial_reason, remaining(spent)) == (denial_of(limit), {"calls": 0})


def test_a_denial_of_any_kind_takes_nothing_from_any_limit(house: House, verify: Verify, limit: Any) -> None:
    key = house.key(limits=[limit("calls", 2), rate("rate", 5), quota("quota", 5)])
    for _ in range(3):
        assert verify(key.key_string, required_permissions="orders.read").decision == DENY
        assert verify(_with_another_secret(key.key_string)).decision == DENY
        assert verify(key.key_string, cost=3).denial_reason == denial_of(limit)
    assert remaining(verify(key.key_string)) == {"calls": 1, "rate": 4, "quota": 4}
    assert verify(key.key_string).decision == ALLOW
    assert remaining(verify(key.key_string)) == {"calls": 0, "rate": 3, "quota": 3}


def test_of_both_kinds_the_rate_limit_is_the_reason(house: House, verify: Verify) -> None:
    key = house.key(limits=[quota("quota", 0), rate("rate", 1)]).key_string
    assert verify(key).denial_reason == QUOTA_EXCEEDED
    assert verify(key, cost=2).denial_reason == RATE_LIMITED


def test_a_batch_takes_from_the_limits_for_each_of_its_entries(house: House, verify: Verify, limit: Any) -> None:
    key = house.key(limits=[limit("calls", 3)]).key_string
    one = verify_service_pb2.VerifyRequest(key=key)
    batch = verify.stub.BatchVerify(verify_service_pb2.BatchVerifyRequest(requests=[one] * 5), timeout=20)
    decisions = [response.decision for response in batch.responses]
    assert (decisions.count(ALLOW), decisions.count(DENY)) == (3, 2)


def test_calls_of_administrators_take_nothing(house: House, verify: Verify, limit: Any) -> None:
    key = house.key("latchgate", permissions=["latchgate.keys.get"], limits=[limit("calls", 1)])
    admin = house.caller(key.key_string)
    for _ in range(3):
        assert admin.GetKey(pb.GetKeyRequest(key_id=key.key.key_id)).key.key_id == key.key.key_id
    assert remaining(verify(key.key_string, cost=0)) == {"calls": 1}


def test_a_negative_or_gigantic_cost_is_refused(house: House, verify: Verify) -> None:
    key = house.key().key_string
    for cost in (-1, 2**53):
        refused = refusal(lambda cost=cost: verify(key, cost=cost))
        assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("cost",))


# What a client is told.


def test_a_response_tells_where_each_limit_stands(house: House, verify: Verify) -> None:
    tenant = house.tenant(limits=[quota("monthly", 100, key_pb2.Quota.PERIOD_MONTH)])
    key = house.key(tenant, limits=[rate("calls", 60, seconds=60, burst=10), quota("prepaid", 50)]).key_string
    calls, prepaid, monthly = sorted(verify(key, cost=3).limits, key=lambda status: status.name != "calls")
    if prepaid.name == "monthly":
        prepaid, monthly = monthly, prepaid
    assert (calls.name, calls.kind, calls.holder) == ("calls", LimitStatus.KIND_RATE_LIMIT, LimitStatus.HOLDER_KEY)
    assert (calls.limit, calls.remaining) == (10, 7)
    assert 2.9 < calls.reset_after.ToTimedelta().total_seconds() <= 3.001
    assert (prepaid.name, prepaid.kind, prepaid.holder) == ("prepaid", LimitStatus.KIND_QUOTA, LimitStatus.HOLDER_KEY)
    assert (prepaid.limit, prepaid.remaining, prepaid.HasField("reset_after")) == (50, 47, False)
    assert (monthly.name, monthly.holder) == ("monthly", LimitStatus.HOLDER_TENANT)
    assert (monthly.limit, monthly.remaining) == (100, 97)
    assert timedelta() < monthly.reset_after.ToTimedelta() <= timedelta(days=31)
    assert (calls.per_period, calls.period.seconds) == (60, 60)
    assert (monthly.per_period, monthly.HasField("period"), prepaid.HasField("period")) == (100, False, False)


def test_a_denial_tells_when_to_try_again(house: House, verify: Verify) -> None:
    key = house.key(limits=[rate("calls", 1, seconds=30)]).key_string
    verify(key)
    denial = verify(key)
    assert 15 < denial.retry_after.ToTimedelta().total_seconds() <= 30.001
    assert denial.message == "Too many requests; try again later."
    day = verify(house.key(limits=[quota("calls", 0, key_pb2.Quota.PERIOD_DAY)]).key_string)
    assert 0 < day.retry_after.ToTimedelta().total_seconds() <= 86_400


def test_where_waiting_does_not_help_nothing_is_told_of_when(house: House, verify: Verify) -> None:
    more_than_a_burst = verify(house.key(limits=[rate("calls", 5)]).key_string, cost=6)
    used_up_for_good = verify(house.key(limits=[quota("calls", 0)]).key_string)
    assert not more_than_a_burst.HasField("retry_after")
    assert not used_up_for_good.HasField("retry_after")


# What administrators change.


def test_a_changed_limit_holds_from_when_the_change_returns(house: House, verify: Verify, limit: Any) -> None:
    key = house.key(limits=[limit("calls", 3)])
    assert reasons(verify, key.key_string, 4) == [0, 0, 0, denial_of(limit)]
    _set_limits(house, key.key.key_id, [limit("calls", 5)])
    if limit is quota:
        assert reasons(verify, key.key_string, 3) == [0, 0, QUOTA_EXCEEDED]
        _set_limits(house, key.key.key_id, [limit("calls", 2)])
    assert verify(key.key_string, cost=5).decision == DENY
    _set_limits(house, key.key.key_id, [])
    assert reasons(verify, key.key_string, 3) == [0, 0, 0]


def test_a_quota_that_is_lowered_gives_no_more_than_the_new_one(house: House, verify: Verify) -> None:
    key = house.key(limits=[quota("calls", 1_000)])
    assert reasons(verify, key.key_string, 4) == [0, 0, 0, 0]
    _set_limits(house, key.key.key_id, [quota("calls", 6)])
    assert reasons(verify, key.key_string, 3) == [0, 0, QUOTA_EXCEEDED]


def _set_limits(house: House, key_id: str, limits: Sequence[key_pb2.Limit]) -> None:
    update = pb.UpdateKeyRequest(key=key_pb2.Key(key_id=key_id, limits=limits))
    update.update_mask.paths.append("limits")
    house.root.UpdateKey(update)


def test_a_limit_that_is_set_back_is_whole_again_for_the_next_call(house: House, verify: Verify, limit: Any) -> None:
    key = house.key(limits=[limit("calls", 3)])
    for _ in range(2):
        assert reasons(verify, key.key_string, 4) == [0, 0, 0, denial_of(limit)]
        reset = house.root.ResetLimit(pb.ResetLimitRequest(key_id=key.key.key_id, name="calls"))
        assert (reset.limit.name, reset.limit.limit, reset.limit.remaining) == ("calls", 3, 3)
        assert reset.propagation.replicas_confirmed >= 1


def test_a_limit_can_be_set_back_to_less(house: House, verify: Verify, limit: Any) -> None:
    tenant = house.tenant(limits=[limit("calls", 10)])
    key = house.key(tenant).key_string
    assert remaining(verify(key)) == {"calls": 9}
    reset = house.root.ResetLimit(pb.ResetLimitRequest(tenant_id=tenant, name="calls", remaining=2))
    assert reset.limit.remaining == 2
    assert reset.limit.holder == LimitStatus.HOLDER_TENANT
    assert reasons(verify, key, 3) == [0, 0, denial_of(limit)]


def test_a_tenant_that_is_made_anew_begins_with_whole_limits(house: House, verify: Verify) -> None:
    tenant = house.tenant(limits=[quota("calls", 1)])
    assert reasons(verify, house.key(tenant).key_string, 2) == [0, QUOTA_EXCEEDED]
    house.root.DeleteTenant(pb.DeleteTenantRequest(tenant_id=tenant))
    house.tenant(tenant_id=tenant, limits=[quota("calls", 1)])
    assert reasons(verify, house.key(tenant).key_string, 1) == [0]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": "calls"}, "holder"),
        ({"key_id": "lg_x", "name": ""}, "name"),
        ({"key_id": "", "name": "calls"}, "key_id"),
        ({"tenant_id": "A", "name": "calls"}, "tenant_id"),
        ({"tenant_id": "a", "name": "calls", "remaining": -1}, "remaining"),
        ({"tenant_id": "a", "name": "calls", "reason": "x" * 501}, "reason"),
    ],
)
def test_a_malformed_reset_names_its_field(house: House, fields: dict[str, Any], field: str) -> None:
    refused = refusal(lambda: house.root.ResetLimit(pb.ResetLimitRequest(**fields)))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (field,))


def test_more_than_the_whole_cannot_be_left(house: House) -> None:
    key_id = house.key(limits=[rate("calls", 3)]).key.key_id
    request = pb.ResetLimitRequest(key_id=key_id, name="calls", remaining=4)
    assert refusal(lambda: house.root.ResetLimit(request)).fields == ("remaining",)


def test_a_limit_that_nobody_holds_is_not_found(house: House) -> None:
    key, tenant = house.key(limits=[rate("calls", 3)]), house.tenant()
    for request in (
        pb.ResetLimitRequest(key_id=key.key.key_id, name="other"),
        pb.ResetLimitRequest(tenant_id=tenant, name="calls"),
        pb.ResetLimitRequest(tenant_id="nobody", name="calls"),
        pb.ResetLimitRequest(key_id="nobody", name="calls"),
    ):
        assert refusal(lambda request=request: house.root.ResetLimit(request)).code == grpc.StatusCode.NOT_FOUND


def test_an_administrator_of_a_tenant_sets_back_what_the_tenant_gave_itself_alone(house: House) -> None:
    tenant = house.tenant(plan_id=house.plan(key_limits=[rate("plan", 3)]), limits=[rate("tenant", 3)])
    key_id = house.key(tenant, limits=[rate("own", 3)]).key.key_id
    admin = house.admin(tenant, "latchgate.limits.reset")
    assert admin.ResetLimit(pb.ResetLimitRequest(key_id=key_id, name="own")).limit.remaining == 3
    of_plan = refusal(lambda: admin.ResetLimit(pb.ResetLimitRequest(key_id=key_id, name="plan")))
    of_tenant = refusal(lambda: admin.ResetLimit(pb.ResetLimitRequest(tenant_id=tenant, name="tenant")))
    elsewhere = house.key(limits=[rate("own", 3)]).key.key_id
    unseen = refusal(lambda: admin.ResetLimit(pb.ResetLimitRequest(key_id=elsewhere, name="own")))
    assert (of_plan.code, of_tenant.code) == (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.PERMISSION_DENIED)
    assert unseen.code == grpc.StatusCode.NOT_FOUND


def test_a_reset_is_in_the_audit_log_of_its_key(house: House) -> None:
    key_id = house.key(limits=[quota("calls", 3)]).key.key_id
    house.root.ResetLimit(pb.ResetLimitRequest(key_id=key_id, name="calls", remaining=1, reason="goodwill"))
    event = house.root.ListAuditEvents(pb.ListAuditEventsRequest(target_id=key_id, page_size=1)).events[0]
    assert (event.method, event.target_type, event.reason) == ("ResetLimit", "key", "goodwill")
    assert event.after["limits"]["calls"]["remaining"] == 1


def test_the_support_desk_sees_where_limits_stand_and_takes_nothing(house: House, verify: Verify) -> None:
    key = house.key(limits=[rate("calls", 2), quota("prepaid", 1)])
    verify(key.key_string)
    explained = house.root.ExplainKey(pb.ExplainKeyRequest(key_id=key.key.key_id))
    checks = {check.denial_reason: check for check in explained.checks}
    assert explained.denial_reason == QUOTA_EXCEEDED
    assert (checks[RATE_LIMITED].passed, checks[RATE_LIMITED].detail) == (True, "1 of 2 of calls is left.")
    assert (checks[QUOTA_EXCEEDED].passed, checks[QUOTA_EXCEEDED].detail) == (False, "0 of 1 of prepaid is left.")
    assert remaining(verify(key.key_string, cost=0)) == {"calls": 1, "prepaid": 0}
