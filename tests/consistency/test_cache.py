"""Records in memory: how many are kept, what takes them away again, and which loads are kept at all."""

from __future__ import annotations

import pytest

from latchgate_server.core.errors import CannotDecide
from latchgate_server.core.model import HashProfile, Key, Plan, Role, SecretHash, Tenant
from latchgate_server.core.ports import Loaded
from latchgate_server.core.record import Record, build_record
from latchgate_server.core.replication import Change
from latchgate_server.verify.cache import RecordCache

SECRET = SecretHash(profile=HashProfile.GENERATED, pepper_id="1", phc="$argon2id$", tag=None)
EVERYTHING = Change("all", "")


def record(key_id: str, *, tenant_id: str = "acme", plan_id: str = "", role_numbers: tuple[int, ...] = ()) -> Record:
    """What a key's record is, as far as the cache minds."""
    return build_record(
        key=Key(key_id=key_id, tenant_id=tenant_id),
        secret=SECRET,
        tenant=Tenant(tenant_id=tenant_id, plan_id=plan_id),
        plan=Plan(plan_id=plan_id) if plan_id else None,
        roles=[(number, Role(role_id=f"role-{number}")) for number in role_numbers],
        revision=1,
    )


def load(cache: RecordCache, key_id: str, found: Record | None, revision: int = 1) -> None:
    """Load a key, with nothing else happening meanwhile."""
    cache.finish_load(cache.begin_load(), key_id, Loaded(found, revision))


def cache_with(*records: Record) -> RecordCache:
    """A cache that has applied revision 1 and holds these records."""
    cache = RecordCache(100)
    cache.restart(1)
    for each in records:
        load(cache, each.identity.key_id, each)
    return cache


# How many -------------------------------------------------------------------------------------------------------------


def test_the_record_that_was_not_used_for_longest_goes_first() -> None:
    cache = RecordCache(2)
    load(cache, "a", record("a"))
    load(cache, "b", record("b"))
    assert cache.get("a")
    load(cache, "c", record("c"))
    assert cache.get("b") is None
    assert cache.get("a")
    assert cache.get("c")
    assert len(cache) == 2


def test_keys_that_do_not_exist_take_no_room_from_those_that_do() -> None:
    cache = RecordCache(20)
    for number in range(20):
        load(cache, f"key-{number}", record(f"key-{number}"))
    for number in range(1_000):
        load(cache, f"guess-{number}", None)
    assert len(cache) == 20
    assert [number for number in range(1_000) if cache.get(f"guess-{number}")] == [998, 999]


def test_nothing_is_left_of_records_that_went() -> None:
    cache = RecordCache(10)
    for number in range(100):
        load(cache, f"key-{number}", record(f"key-{number}", tenant_id=f"tenant-{number}", role_numbers=(number,)))
    assert (len(cache._together), len(cache._dependents)) == (10, 20)
    cache.apply(2, [Change("key", f"key-{number}") for number in range(100)])
    assert not cache._together
    assert not cache._dependents


# What takes them away -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (Change("key", "a"), "bcd"),
        (Change("tenant", "acme"), "cd"),
        (Change("plan", "gold"), "bd"),
        (Change("role", "7"), "ad"),
        (EVERYTHING, ""),
        (Change("key", "unknown"), "abcd"),
        (Change("tenant", "a"), "abcd"),
        (Change("role", "70"), "abcd"),
    ],
    ids=lambda value: f"{value.entity} {value.id}" if isinstance(value, Change) else value,
)
def test_a_change_evicts_what_depends_on_it_and_nothing_else(change: Change, left: str) -> None:
    cache = cache_with(
        record("a", plan_id="gold"),
        record("b", role_numbers=(8, 7)),
        record("c", tenant_id="other", plan_id="gold", role_numbers=(7,)),
        record("d", tenant_id="another", plan_id="silver", role_numbers=(8,)),
    )
    cache.apply(2, [change])
    assert "".join(key_id for key_id in "abcd" if cache.get(key_id)) == left
    assert cache.applied_revision == 2


def test_changes_that_are_not_known_one_by_one_evict_everything() -> None:
    cache = cache_with(record("a"))
    load(cache, "guess", None)
    cache.apply(2, None)
    assert cache.get("a") is None
    assert cache.get("guess") is None
    assert cache.applied_revision == 2


@pytest.mark.parametrize("change", [Change("key", "new"), EVERYTHING])
def test_a_key_known_not_to_exist_is_looked_up_again_once_it_is_created(change: Change) -> None:
    cache = cache_with()
    load(cache, "new", None)
    assert cache.get("new")
    cache.apply(2, [change])
    assert cache.get("new") is None


def test_a_key_depends_on_what_it_was_last_loaded_with() -> None:
    cache = cache_with(record("a", tenant_id="acme"))
    load(cache, "a", record("a", tenant_id="other"))
    cache.apply(2, [Change("tenant", "acme")])
    assert cache.get("a")
    cache.apply(3, [Change("tenant", "other")])
    assert cache.get("a") is None


def test_a_key_is_not_both_there_and_not() -> None:
    cache = cache_with(record("a"))
    load(cache, "a", None)
    entry = cache.get("a")
    assert entry
    assert entry.record is None
    load(cache, "a", record("a"))
    cache.apply(2, [Change("tenant", "acme")])
    assert cache.get("a") is None


# Which loads are kept -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [Change("key", "a"), Change("tenant", "acme"), EVERYTHING, Change("key", "other")])
def test_a_load_that_an_eviction_overtook_is_answered_but_not_kept(change: Change) -> None:
    cache = cache_with()
    life = cache.begin_load()
    cache.apply(2, [change])
    found = record("a")
    assert cache.finish_load(life, "a", Loaded(found, revision=1)).record is found
    assert cache.get("a") is None


@pytest.mark.parametrize("revision", [2, 3])
def test_a_load_that_shows_all_that_was_applied_is_kept(revision: int) -> None:
    cache = cache_with()
    life = cache.begin_load()
    cache.apply(2, [Change("key", "a")])
    cache.finish_load(life, "a", Loaded(record("a"), revision))
    assert cache.get("a")


def test_that_a_key_does_not_exist_is_kept_by_the_same_rule() -> None:
    cache = cache_with()
    life = cache.begin_load()
    cache.apply(2, [Change("key", "new")])
    cache.finish_load(life, "new", Loaded(None, revision=1))
    assert cache.get("new") is None


def test_a_restart_forgets_loads_under_way_though_revisions_run_lower_afterwards() -> None:
    cache = cache_with(record("a"))
    life = cache.begin_load()
    cache.restart(0)
    cache.finish_load(life, "b", Loaded(record("b"), revision=1))
    assert cache.get("a") is None
    assert cache.get("b") is None
    load(cache, "b", record("b"), revision=0)
    assert cache.get("b")


def test_a_stored_key_that_makes_no_sense_is_an_error_and_not_kept() -> None:
    cache = cache_with()
    with pytest.raises(CannotDecide, match="malformed"):
        cache.finish_load(cache.begin_load(), "a", Loaded(CannotDecide("malformed"), revision=1))
    assert cache.get("a") is None
