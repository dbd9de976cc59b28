"""What a client's cache may answer, and what it must not: its rules one by one, on a clock that the test moves."""

from __future__ import annotations

import copy
import json
import os
import pickle
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from latchgate import Client, Query, Verification
from latchgate.cache import DecisionCache
from latchgate.results import Identity, LimitStatus
from latchgate.v1.verify_service_pb2 import WatchKeysResponse

LEASE = 0.9
QUERY = Query(key="lg_a.secret-of-a", requires="orders.read", client_ip="203.0.113.9")
NOW = 1_000_000.0
"""What the server's wall clock shows when the test begins."""


class Scene:
    """A cache whose stream has just begun at revision 5, with a lease."""

    def __init__(self) -> None:
        self.time = 100.0
        self.cache = DecisionCache(3, lambda: self.time)

    def begin(self, revision: int = 5) -> None:
        self.cache.restart()
        self.say_and_hear(revision=revision)

    def say_and_hear(self, takes: float = 0.0, **message: Any) -> None:
        """Ask for a lease, and get it so many seconds later."""
        sequence = self.cache.next_message().sequence
        self.time += takes
        self.cache.hear(granting(sequence, self.time, **message))

    def keep(self, query: Query = QUERY, verification: Verification | None = None) -> None:
        self.cache.keep(self.cache.begin(), query, verification or allowed())

    def answers(self) -> bool:
        return self.cache.find(QUERY) is not None


def granting(sequence: int, time: float, **message: Any) -> WatchKeysResponse:
    """A server's answer at that time of the test's clock, with a lease."""
    message.setdefault("revision", 5)
    server_time = Timestamp(seconds=int(NOW + time - 100.0), nanos=int((time - 100.0) % 1 * 1e9))
    lease = Duration(nanos=int(LEASE * 1e9))
    return WatchKeysResponse(sequence=sequence, lease=lease, server_time=server_time, **message)


def allowed(key_id: str = "lg_a", *, revision: int = 5, **fields: Any) -> Verification:
    identity = Identity(
        key_id=key_id,
        tenant=fields.pop("tenant", "acme"),
        name="",
        owner="",
        user="ada",
        roles=(),
        permissions=("orders.read",),
        capabilities=(),
        resources=(),
        claims={"sites": ["berlin"], "limits": {"rows": 5}},
        environment="",
        tags={"team": "web"},
        expire_time=fields.pop("expire_time", None),
    )
    return Verification(allowed=not fields.get("reason"), identity=identity, revision=revision, **fields)


@pytest.fixture
def scene() -> Scene:
    made = Scene()
    made.begin()
    return made


# Leases.


def test_a_decision_is_repeated_until_the_lease_ends(scene: Scene) -> None:
    assert not scene.answers()
    scene.keep()
    assert scene.cache.find(QUERY) == allowed()
    scene.time += LEASE - 0.001
    assert scene.answers()
    scene.time += 0.001
    assert not scene.answers()


def test_a_lease_counts_from_when_the_message_was_sent_not_from_its_answer(scene: Scene) -> None:
    scene.keep()
    scene.time += LEASE
    scene.say_and_hear(takes=0.5)
    assert scene.answers()
    scene.time += 0.41
    assert not scene.answers()


def test_a_lease_counts_from_the_message_that_is_answered_not_from_a_later_one(scene: Scene) -> None:
    scene.keep()
    scene.time += LEASE
    first = scene.cache.next_message().sequence
    scene.time += 0.5
    scene.cache.next_message()
    scene.cache.hear(granting(first, scene.time))
    scene.time += 0.41
    assert not scene.answers()


def test_an_answer_to_what_was_never_asked_grants_nothing(scene: Scene) -> None:
    scene.keep()
    scene.time += LEASE
    scene.cache.hear(granting(4_711, scene.time))
    assert not scene.answers()


def test_a_message_drops_before_its_lease_counts_and_asks_to_be_acknowledged(scene: Scene) -> None:
    scene.keep()
    sequence = scene.cache.next_message().sequence
    assert scene.cache.hear(granting(sequence, scene.time, revision=6, key_ids=["lg_a"]))
    assert not scene.answers()
    assert scene.cache.next_message().applied_revision == 6


def test_a_new_stream_drops_everything_and_its_lease(scene: Scene) -> None:
    scene.keep()
    scene.cache.restart()
    assert scene.cache.info().entries == 0
    assert not scene.cache.info().has_lease
    assert scene.cache.next_message().applied_revision == 0


def test_an_answer_is_overdue_after_five_leases_and_at_least_five_seconds(scene: Scene) -> None:
    """One that grants nothing is an answer as well; news are none."""
    assert not scene.cache.overdue, "nothing is owed"
    first = scene.cache.next_message().sequence
    scene.time += 4
    second = scene.cache.next_message().sequence
    scene.cache.hear(WatchKeysResponse(revision=6))
    scene.time += 1.1
    assert scene.cache.overdue == pytest.approx(5.1)
    scene.cache.hear(WatchKeysResponse(revision=6, sequence=first))
    assert not scene.cache.overdue
    scene.time += 4
    assert scene.cache.overdue == pytest.approx(5.1)
    long = WatchKeysResponse(revision=6, sequence=second, lease=Duration(seconds=30))
    scene.cache.hear(long)
    scene.cache.next_message()
    scene.time += 149
    assert not scene.cache.overdue
    scene.time += 2
    assert scene.cache.overdue
    scene.cache.restart()
    assert not scene.cache.overdue, "a new stream owes nothing yet"


# What is kept.


def test_an_answer_from_before_what_was_told_is_not_kept(scene: Scene) -> None:
    scene.keep(verification=allowed(revision=4))
    assert not scene.answers()
    scene.keep(verification=allowed(revision=6))
    assert scene.answers()


def test_nothing_is_kept_before_a_stream_has_told_where_it_begins(scene: Scene) -> None:
    scene.cache.restart()
    scene.keep(verification=allowed(revision=1_000))
    scene.say_and_hear()
    assert not scene.answers()


def test_an_answer_to_a_call_from_before_the_stream_is_not_kept(scene: Scene) -> None:
    life = scene.cache.begin()
    scene.begin(revision=3)
    scene.cache.keep(life, QUERY, allowed())
    assert not scene.answers()


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(Verification(allowed=False, reason="INVALID_API_KEY", revision=5), id="nobody's"),
        pytest.param(Verification(allowed=False, reason="INVALID_SECRET", revision=5), id="not proven"),
        pytest.param(allowed(stale=True), id="stale"),
        pytest.param(allowed(reason="API_KEY_EXPIRED"), id="expired by some clock"),
        pytest.param(
            allowed(
                limits=(LimitStatus(name="n", kind="quota", holder="key", limit=9, remaining=8, reset_after=None),)
            ),
            id="with a limit",
        ),
        pytest.param(allowed(reason="RATE_LIMITED"), id="over a limit"),
    ],
)
def test_what_may_change_without_a_word_is_not_kept(told: Verification, scene: Scene) -> None:
    scene.keep(verification=told)
    assert scene.cache.info().entries == 0


def test_who_only_looks_at_limits_is_never_answered(scene: Scene) -> None:
    scene.keep(replace(QUERY, cost=0))
    assert scene.cache.find(replace(QUERY, cost=0)) is None


def test_a_denial_of_a_proven_key_is_repeated_like_any_decision(scene: Scene) -> None:
    scene.keep(verification=allowed(reason="INSUFFICIENT_PERMISSIONS"))
    assert scene.cache.find(QUERY) == allowed(reason="INSUFFICIENT_PERMISSIONS")


@pytest.mark.parametrize(
    "other",
    [
        {"key": "lg_a.secret-of-b"},
        {"client_ip": "203.0.113.10"},
        {"tenant": "acme"},
        {"requires": "orders.write"},
        {"capability": "exports"},
        {"act_as": "bob"},
        {"resource": "sites/berlin"},
        {"cost": 2},
        {"key": "\ud800"},
    ],
)
def test_another_question_is_another_decision(other: dict[str, Any], scene: Scene) -> None:
    scene.keep()
    assert scene.cache.find(replace(QUERY, **other)) is None


def test_what_only_describes_the_request_does_not_matter(scene: Scene) -> None:
    scene.keep(replace(QUERY, path="/a", method="GET"))
    assert scene.cache.find(replace(QUERY, path="/b", host="x", user_agent="y")) is not None


# What is dropped.


@pytest.mark.parametrize("named", [{"key_ids": ["lg_a"]}, {"tenant_ids": ["acme"]}, {"drop_all": True}])
def test_what_is_named_goes(named: dict[str, Any], scene: Scene) -> None:
    scene.keep()
    scene.keep(replace(QUERY, requires=""))
    scene.cache.hear(WatchKeysResponse(revision=6, **named))
    assert scene.cache.info().entries == 0
    assert not scene.cache._of_keys
    assert not scene.cache._of_tenants


def test_what_is_not_named_stays(scene: Scene) -> None:
    scene.keep()
    scene.cache.hear(WatchKeysResponse(revision=6, key_ids=["lg_b"], tenant_ids=["other"]))
    assert scene.answers()


def test_the_least_recently_used_decisions_make_room(scene: Scene) -> None:
    for number in range(3):
        scene.keep(replace(QUERY, resource=str(number)))
    scene.cache.find(replace(QUERY, resource="0"))
    scene.keep(replace(QUERY, resource="3"))
    kept = [number for number in range(4) if scene.cache.find(replace(QUERY, resource=str(number)))]
    assert kept == [0, 2, 3]


def test_no_decision_is_repeated_for_more_than_five_minutes(scene: Scene) -> None:
    scene.keep()
    scene.time += 299
    scene.say_and_hear()
    assert scene.answers()
    scene.time += 1
    scene.say_and_hear()
    assert not scene.answers()


# Time, and revisions.


def test_a_key_is_not_used_beyond_its_expiry_by_the_servers_clock(scene: Scene) -> None:
    scene.keep(verification=allowed(expire_time=datetime.fromtimestamp(NOW + 0.5, UTC)))
    scene.time += 0.49
    assert scene.answers()
    scene.time += 0.01
    assert not scene.answers()


def test_the_servers_clock_may_have_come_as_far_as_if_it_had_answered_at_once(scene: Scene) -> None:
    scene.say_and_hear(takes=0.3)
    scene.keep(verification=allowed(expire_time=datetime.fromtimestamp(NOW + 0.5, UTC)))
    assert scene.cache.find(QUERY) is None, "0.3 s ago it showed up to 0.3 s more"


def test_without_the_servers_clock_a_key_that_expires_is_asked_about(scene: Scene) -> None:
    scene.cache.restart()
    sequence = scene.cache.next_message().sequence
    scene.cache.hear(WatchKeysResponse(sequence=sequence, revision=5, lease=Duration(seconds=1)))
    scene.keep(verification=allowed(expire_time=datetime(2100, 1, 1, tzinfo=UTC)))
    assert not scene.answers()
    scene.keep()
    assert scene.answers()


def test_who_wants_newer_state_than_was_told_asks(scene: Scene) -> None:
    scene.keep()
    assert scene.cache.find(replace(QUERY, at_least_revision=6)) is None
    scene.cache.hear(WatchKeysResponse(revision=6))
    newer = scene.cache.find(replace(QUERY, at_least_revision=6))
    assert newer is not None
    assert newer.revision == 6


# Secrets, and what callers are given.


def test_the_key_string_is_nowhere_in_the_cache(scene: Scene) -> None:
    scene.keep()
    assert scene.answers()
    assert "secret-of-a" not in repr([vars(scene.cache), list(scene.cache._entries), scene.cache.info()])


def test_what_one_caller_is_given_cannot_be_changed_under_another(scene: Scene) -> None:
    scene.keep()
    found = scene.cache.find(QUERY)
    assert found is not None
    assert found.identity is not None
    claims: Any = found.identity.claims
    tags: Any = found.identity.tags
    for change in (
        lambda: claims.update(sites=[]),
        lambda: claims.__setitem__("sites", []),
        lambda: claims.pop("sites"),
        lambda: claims["sites"].append("paris"),
        claims["limits"].clear,
        lambda: tags.update(x="y"),
    ):
        with pytest.raises(TypeError, match="copy"):
            change()
    assert json.loads(json.dumps(claims)) == claims == {"sites": ["berlin"], "limits": {"rows": 5}}
    for copied in (dict(claims), copy.deepcopy(claims), pickle.loads(pickle.dumps(claims))):
        copied["sites"] = []
    assert claims["sites"] == ["berlin"]


# Uses.


def test_what_was_answered_is_reported_once(scene: Scene) -> None:
    scene.keep()
    denied = replace(QUERY, requires="orders.write")
    scene.keep(denied, allowed(reason="INSUFFICIENT_PERMISSIONS"))
    for query in (QUERY, QUERY, denied):
        scene.cache.find(query)
    [use] = scene.cache.next_message().uses
    assert (use.key_id, use.allowed, dict(use.denied)) == ("lg_a", 2, {"INSUFFICIENT_PERMISSIONS": 1})
    assert use.last_client_ip == "203.0.113.9"
    assert not scene.cache.next_message().uses


def test_what_cannot_be_reported_is_asked_instead(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latchgate.uses._KEYS", 1)
    other = replace(QUERY, key="lg_b.x")
    scene.keep()
    scene.keep(other, allowed("lg_b"))
    assert scene.answers()
    assert scene.cache.find(other) is None
    scene.cache.next_message()
    assert scene.cache.find(other) is not None


def test_a_process_that_is_forked_off_has_no_lease(scene: Scene) -> None:
    scene.keep()
    assert scene.answers()
    pid = os.fork()
    if pid == 0:
        os._exit(sum([scene.answers(), scene.cache.info().has_lease, len(scene.cache.next_message().uses)]))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert scene.answers()


def test_a_cache_needs_a_caller_with_a_key() -> None:
    with pytest.raises(ValueError, match=r"latchgate\.watch"):
        Client("127.0.0.1:1", cache=True)
