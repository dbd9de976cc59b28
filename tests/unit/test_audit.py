"""The audit log: what an event tells of a change, and how the chain of events shows tampering."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchgate_server.admin.audit import Actor, Auditable, AuditTrail, Change, chain_hash, changed_fields
from latchgate_server.core.errors import PepperMissing
from latchgate_server.core.model import Key, KeyState, Plan, Quota, QuotaPeriod, RateLimit, Role, Tenant
from latchgate_server.core.ports import AuditEvent, Transaction
from latchgate_server.hashing import Peppers

PEPPER = bytes(range(32))
PEPPERS = Peppers([PEPPER])
NOW = datetime(2030, 1, 2, 3, 4, 5, 678_900, tzinfo=UTC)
CONTENT: Mapping[str, object] = {
    "sequence": 7,
    "time": NOW,
    "tenant_id": "acme",
    "actor": "lg_1",
    "actor_ip": "192.0.2.7",
    "method": "UpdateKey",
    "target_type": "key",
    "target_id": "lg_2",
    "before": {"owner": "ada"},
    "after": {"owner": "bob"},
    "reason": "left the company",
    "revision": 99,
}


@dataclass
class Log:
    """As much of a transaction as the log needs, in memory."""

    revision: int = 5
    time: datetime = NOW
    events: list[AuditEvent] = field(default_factory=list)

    async def last_audit_event(self) -> tuple[int, bytes]:
        return (self.events[-1].sequence, self.events[-1].hash) if self.events else (0, b"")

    async def insert_audit_events(self, events: Sequence[AuditEvent]) -> None:
        self.events.extend(events)


async def write(log: Log, *changes: Change, peppers: Peppers = PEPPERS) -> None:
    trail = AuditTrail(cast(Transaction, log), peppers, Actor(key_id="lg_1", address="192.0.2.7"), "UpdateKey")
    for change in changes:
        trail.add(change)
    await trail.write()


def holds(events: list[AuditEvent], peppers: Peppers = PEPPERS) -> bool:
    """Whether the chain of these events holds, from the first on."""
    previous = b""
    for place, event in enumerate(events, start=1):
        content = {f.name: getattr(event, f.name) for f in fields(event) if f.name not in {"pepper_id", "hash"}}
        if event.sequence != place or event.hash != chain_hash(peppers, event.pepper_id, previous, content):
            return False
        previous = event.hash
    return True


def some_change(number: int) -> Change:
    return Change(before=None, after=Key(key_id=f"lg_{number}", tenant_id="acme"), reason=f"reason {number}")


# What is told.


def test_of_a_change_the_fields_that_differ_are_told_before_and_after() -> None:
    before = Key(key_id="lg_1", tenant_id="acme", owner="ada", display_name="x", permissions=("a",))
    after = replace(before, owner="bob", permissions=("a", "b"), etag="2", update_time=NOW)
    assert changed_fields(before, after) == (
        {"owner": "ada", "permissions": ["a"]},
        {"owner": "bob", "permissions": ["a", "b"]},
    )


def test_what_is_cleared_is_told_as_empty() -> None:
    before = Key(key_id="lg_1", tenant_id="acme", owner="ada", expire_time=NOW)
    assert changed_fields(before, replace(before, owner="", expire_time=None)) == (
        {"owner": "ada", "expire_time": "2030-01-02T03:04:05.678900+00:00"},
        {"owner": "", "expire_time": None},
    )


def test_of_what_is_new_or_gone_everything_that_is_set_is_told() -> None:
    role = Role(role_id="reader", tenant_id="acme", permissions=("a",), create_time=NOW, etag="1")
    told = {"role_id": "reader", "tenant_id": "acme", "permissions": ["a"]}
    assert changed_fields(None, role) == ({}, told)
    assert changed_fields(role, None) == (told, {})


def test_limits_states_and_numbers_are_told_in_words_and_without_loss() -> None:
    plan = Plan(
        plan_id="gold",
        key_limits=(RateLimit("r", 10, 1.5, 3), Quota("q", 2**53, QuotaPeriod.MONTH)),
        max_keys=3,
    )
    _, told = changed_fields(None, plan)
    assert told["key_limits"] == [
        {"name": "r", "limit": 10, "period": 1.5, "burst": 3},
        {"name": "q", "limit": "9007199254740992", "period": "MONTH"},
    ]
    key = Key(key_id="lg_1", tenant_id="acme")
    assert changed_fields(key, replace(key, state=KeyState.REVOKED)) == ({"state": "ACTIVE"}, {"state": "REVOKED"})


def test_every_field_of_every_resource_can_be_told() -> None:
    resources: list[Auditable] = [
        Tenant(tenant_id="acme", limits=(RateLimit("r", 1, 1),), tags={"a": "b"}),
        Plan(plan_id="gold", capabilities=("x",), tenant_limits=(Quota("q", 1, QuotaPeriod.DAY),)),
        Role(role_id="reader", claims={"a": [1, 2.5, None, True, {"b": "c"}]}, allow_act_as=True),
        Key(key_id="lg_1", tenant_id="acme", claims={"n": 2**60}, expire_time=NOW, revoke_time=NOW, expired=True),
    ]
    for resource in resources:
        _, told = changed_fields(None, resource)
        assert json.loads(json.dumps(told)) == told


async def test_an_event_tells_who_did_what_to_what_and_why() -> None:
    log = Log()
    before = Key(key_id="lg_2", tenant_id="acme")
    await write(log, Change(before=before, after=replace(before, state=KeyState.DISABLED), reason="leaked"))
    event = log.events[0]
    assert (event.sequence, event.time, event.revision) == (1, NOW, 5)
    assert (event.actor, event.actor_ip, event.method) == ("lg_1", "192.0.2.7", "UpdateKey")
    assert (event.target_type, event.target_id, event.tenant_id) == ("key", "lg_2", "acme")
    assert (event.before, event.after, event.reason) == ({"state": "ACTIVE"}, {"state": "DISABLED"}, "leaked")
    assert event.pepper_id == PEPPERS.current.pepper_id


async def test_a_plan_concerns_no_tenant_in_particular() -> None:
    log = Log()
    await write(log, Change(before=None, after=Plan(plan_id="gold")))
    assert (log.events[0].tenant_id, log.events[0].target_type, log.events[0].target_id) == ("", "plan", "gold")


# The chain.


def test_the_hash_is_an_hmac_over_the_previous_hash_and_the_event_as_canonical_json() -> None:
    """Computed apart from the code: a chain that was written once must hold for ever."""
    previous = bytes(32)
    told = {**CONTENT, "time": "2030-01-02T03:04:05.678900+00:00"}
    canonical = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    key = hmac.digest(PEPPER, b"\0latchgate audit chain", hashlib.sha256)
    expected = hmac.digest(key, previous + canonical, hashlib.sha256)
    assert chain_hash(PEPPERS, PEPPERS.current.pepper_id, previous, CONTENT) == expected


def test_the_order_in_which_fields_are_written_does_not_count() -> None:
    turned = {name: CONTENT[name] for name in reversed(list(CONTENT))}
    pepper_id = PEPPERS.current.pepper_id
    assert chain_hash(PEPPERS, pepper_id, b"", turned) == chain_hash(PEPPERS, pepper_id, b"", CONTENT)


def test_the_same_moment_elsewhere_is_another_text_so_times_are_kept_in_utc() -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=2)))
    assert elsewhere == NOW
    pepper_id = PEPPERS.current.pepper_id
    moved = chain_hash(PEPPERS, pepper_id, b"", {**CONTENT, "time": elsewhere})
    assert moved != chain_hash(PEPPERS, pepper_id, b"", CONTENT)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_an_event_that_was_stored_as_json_and_read_back_has_the_same_hash(values: dict[str, object]) -> None:
    _, told = changed_fields(None, Key(key_id="lg_1", tenant_id="acme", claims=values))
    pepper_id = PEPPERS.current.pepper_id
    hash_ = chain_hash(PEPPERS, pepper_id, b"", {**CONTENT, "after": told})
    assert chain_hash(PEPPERS, pepper_id, b"", {**CONTENT, "after": json.loads(json.dumps(told))}) == hash_


async def test_each_event_follows_the_one_before_it_also_across_mutations() -> None:
    log = Log()
    await write(log, some_change(1), some_change(2))
    await write(log)
    await write(log, some_change(3))
    assert [event.sequence for event in log.events] == [1, 2, 3]
    assert holds(log.events)


@pytest.mark.parametrize("name", [f.name for f in fields(AuditEvent)])
async def test_an_event_in_which_anything_was_altered_shows(name: str) -> None:
    log = Log()
    await write(log, some_change(1), some_change(2), some_change(3))
    altered: dict[str, Any] = {
        "sequence": 4,
        "time": NOW + timedelta(microseconds=1),
        "before": {"owner": "x"},
        "after": {},
        "revision": 6,
        "pepper_id": Peppers([bytes(32)]).current.pepper_id,
        "hash": bytes(32),
    }
    log.events[1] = replace(log.events[1], **{name: altered.get(name, "altered")})
    both = Peppers([PEPPER, bytes(32)])
    assert not holds(log.events, both)


async def test_events_that_were_removed_swapped_or_repeated_show() -> None:
    log = Log()
    await write(log, *(some_change(number) for number in range(4)))
    first, second, third, fourth = log.events
    assert not holds([second, third, fourth])
    assert not holds([first, third, fourth])
    assert not holds([first, third, second, fourth])
    assert not holds([first, second, second, third])
    renumbered = [first, replace(third, sequence=2), replace(fourth, sequence=3)]
    assert not holds(renumbered)
    assert holds([first, second, third]), "a cut-off end shows by an anchor alone"


async def test_without_the_pepper_nobody_can_write_an_event_that_holds() -> None:
    log = Log()
    await write(log, some_change(1), peppers=Peppers([bytes(32)]))
    forged = replace(log.events[0], pepper_id=PEPPERS.current.pepper_id)
    assert not holds([forged])
    with pytest.raises(PepperMissing):
        holds(log.events)


async def test_a_chain_goes_on_under_a_new_pepper() -> None:
    log = Log()
    await write(log, some_change(1))
    rotated = Peppers([bytes(32), PEPPER])
    await write(log, some_change(2), peppers=rotated)
    assert log.events[0].pepper_id != log.events[1].pepper_id
    assert holds(log.events, rotated)
