"""Which limits hold for a key."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from latchgate_server.core.charging import Holder, Reset, hold_limits, limits_of_key, seconds_to_end
from latchgate_server.core.model import Key, Plan, Quota, QuotaPeriod, RateLimit, Tenant

PLAN = Plan(
    plan_id="gold",
    key_limits=(RateLimit("calls", 10, 1.0), Quota("daily", 100, QuotaPeriod.DAY)),
    tenant_limits=(Quota("monthly", 1_000, QuotaPeriod.MONTH),),
)
KEY = Key(key_id="new", tenant_id="acme", lineage_id="first")
TENANT = Tenant(tenant_id="acme", plan_id="gold")


def test_a_key_has_the_plans_limits_and_its_tenants_and_they_belong_to_its_lineage() -> None:
    limits = hold_limits(KEY, TENANT, PLAN, {})
    assert [(rate.holder, rate.holder_id, rate.limit.name) for rate in limits.rates] == [(Holder.KEY, "first", "calls")]
    assert [(quota.holder, quota.holder_id, quota.limit.name) for quota in limits.quotas] == [
        (Holder.KEY, "first", "daily"),
        (Holder.TENANT, "acme", "monthly"),
    ]


def test_a_limit_of_the_keys_own_goes_over_the_plans_of_the_same_name() -> None:
    own = RateLimit("calls", 5, 1.0)
    key = Key(key_id="k", tenant_id="acme", limits=(own,))
    assert limits_of_key(key, PLAN) == {"calls": own, "daily": PLAN.key_limits[1]}


def test_what_was_taken_before_a_reset_is_in_another_bucket() -> None:
    before = hold_limits(KEY, TENANT, PLAN, {}).rates[0]
    after = hold_limits(KEY, TENANT, PLAN, {(Holder.KEY, "calls"): Reset(7, 0, 0.0)}).rates[0]
    other = hold_limits(KEY, TENANT, PLAN, {(Holder.TENANT, "calls"): Reset(7, 0, 0.0)}).rates[0]
    assert before.bucket != after.bucket
    assert before.bucket == other.bucket


@pytest.mark.parametrize(
    ("now", "period", "end"),
    [
        ("2026-01-31T23:59:59", QuotaPeriod.DAY, "2026-02-01T00:00:00"),
        ("2026-01-31T23:59:59", QuotaPeriod.MONTH, "2026-02-01T00:00:00"),
        ("2028-02-01T00:00:00", QuotaPeriod.MONTH, "2028-03-01T00:00:00"),
        ("2026-12-05T12:00:00", QuotaPeriod.MONTH, "2027-01-01T00:00:00"),
    ],
)
def test_periods_end_at_midnight_in_utc(now: str, period: QuotaPeriod, end: str) -> None:
    began, ends = (datetime.fromisoformat(moment).replace(tzinfo=UTC) for moment in (now, end))
    assert seconds_to_end(period, began.timestamp()) == (ends - began).total_seconds()


def test_a_lifetime_has_no_end() -> None:
    assert seconds_to_end(QuotaPeriod.LIFETIME, 0.0) is None
