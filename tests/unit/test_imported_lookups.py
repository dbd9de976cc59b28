"""What keeps unknown and wrong credentials of other systems cheap: the filter, the rate of look-ups, the tries."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchgate_server.core import bounds
from latchgate_server.core.errors import Overloaded
from latchgate_server.core.ports import FormsRead, Loaded, Reader
from latchgate_server.core.replication import Change
from latchgate_server.core.throttle import Throttle
from latchgate_server.hashing import Peppers, SecretHasher
from latchgate_server.system import SystemEntropy
from latchgate_server.verify import loader as loader_module
from latchgate_server.verify.cache import RecordCache
from latchgate_server.verify.import_filter import ImportFilter
from latchgate_server.verify.imported import ImportedForms
from latchgate_server.verify.loader import RecordLoader
from latchgate_server.verify.wrong_tries import WrongTries
from tests.support.still_clock import StillClock


def digest(form: str) -> bytes:
    return hashlib.blake2b(form.encode(), digest_size=16).digest()


# The filter.


@given(st.sets(st.text(), max_size=200))
def test_the_filter_never_misses_what_was_added(forms: set[str]) -> None:
    filter_ = ImportFilter()
    for number, form in enumerate(sorted(forms)):
        filter_.add((number, form), digest(form))
    assert all(filter_.may_hold(digest(form)) for form in forms)
    assert filter_.is_empty == (not forms)


def test_the_filter_grows_by_layers_and_takes_few_for_what_they_are_not() -> None:
    filter_ = ImportFilter()
    count = 50_000
    for number in range(count):
        filter_.add((number, f"form-{number}"), digest(f"form-{number}"))
    assert all(filter_.may_hold(digest(f"form-{number}")) for number in range(0, count, 97))
    wrong = sum(filter_.may_hold(digest(f"other-{number}")) for number in range(50_000))
    assert wrong < 50_000 / 1_000
    size = sum(len(layer._bits) for layer in filter_._layers)
    assert size < 8 * count, "a few bytes for each"


# The reads that fill it.


class Database:
    """As much of a Reader as a loader needs: forms with their revisions, and no record."""

    def __init__(self, *forms: tuple[int, str]) -> None:
        self.revision = 1
        self.forms = list(forms)
        self.form_reads = 0
        self.record_reads: list[Sequence[str]] = []
        self.go = asyncio.Event()
        self.go.set()

    async def read_forms(self, after: tuple[int, str], limit: int) -> FormsRead:
        self.form_reads += 1
        found = FormsRead(self.revision, sorted(place for place in self.forms if place > after)[:limit])
        await self.go.wait()
        return found

    async def load_records(self, key_ids: Sequence[str]) -> Mapping[str, Loaded]:
        self.record_reads.append(key_ids)
        return {key_id: Loaded(None, self.revision) for key_id in key_ids}


class World:
    def __init__(self, *forms: tuple[int, str]) -> None:
        self.database, self.cache, self.clock = Database(*forms), RecordCache(1_000), StillClock(1_000.0)
        self.cache.applied_revision = 1
        loader = RecordLoader(cast(Reader, self.database), self.cache)
        hasher = SecretHasher(Peppers([bytes(32)]), b"tag", SystemEntropy(), threads=1)
        self.imports = ImportedForms(self.cache, loader, hasher, self.clock)


async def test_the_filter_is_read_once_for_all_and_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_module, "FORMS_AT_ONCE", 10)
    world = World(*[(number // 7, f"form-{number:02}") for number in range(25)])
    await asyncio.gather(*(world.imports.refresh() for _ in range(50)))
    assert world.database.form_reads == 3
    assert world.cache.imports.is_current
    assert all(world.imports.remember(f"form-{number:02}") is None for number in range(25)), "they may exist"
    nobody = world.imports.remember("another")
    assert nobody is not None
    assert nobody.record is None


async def test_an_import_is_read_on_top_of_what_is_there() -> None:
    world = World((1, "a"))
    await world.imports.refresh()
    world.database.forms.append((2, "b"))
    world.database.revision = 2
    assert world.imports.remember("b") is not None
    world.cache.apply(2, [Change("import", "b")])
    assert world.imports.remember("b") is None, "from here on the filter rules nothing out"
    await world.imports.refresh()
    assert world.cache.imports.place == (2, "b")
    assert world.imports.remember("b") is None
    assert world.imports.remember("c") is not None


async def test_what_was_read_before_an_import_was_applied_rules_nothing_out() -> None:
    world = World()
    world.database.go.clear()
    reading = asyncio.get_running_loop().create_task(world.imports.refresh())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    world.database.forms.append((2, "b"))
    world.cache.apply(2, [Change("import", "b")])
    world.database.revision = 2
    world.database.go.set()
    await reading
    assert world.database.form_reads == 2, "the first was too old"
    assert world.imports.remember("b") is None


async def test_what_was_read_before_everything_was_forgotten_is_forgotten_too() -> None:
    world = World((1, "a"))
    world.database.go.clear()
    reading = asyncio.get_running_loop().create_task(world.imports.refresh())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    world.cache.restart(1)
    world.database.go.set()
    await reading
    assert world.database.form_reads == 2
    assert world.imports.remember("a") is None


@pytest.mark.parametrize("change", [Change("import", "x"), Change("all", "")])
async def test_any_import_clears_what_was_not_found(change: Change) -> None:
    world = World()
    await world.imports.load("x")
    assert world.cache.get("x") is not None
    world.cache.apply(2, [change])
    assert world.cache.get("x") is None


# The rate of look-ups.


async def test_unknown_forms_are_looked_up_at_a_bounded_rate() -> None:
    world = World()
    for number in range(bounds.UNKNOWN_FORMS_AT_ONCE):
        await world.imports.load(f"x-{number}")
    assert world.clock.time == 1_000.0
    began = world.clock.time
    for number in range(bounds.UNKNOWN_FORMS_PER_SECOND):
        await world.imports.load(f"y-{number}")
    assert world.clock.time - began == pytest.approx(1.0, abs=0.02)


async def test_the_queue_of_unknown_forms_is_bounded_by_time() -> None:
    world = World()
    for _ in range(bounds.UNKNOWN_FORMS_AT_ONCE + bounds.UNKNOWN_FORMS_PER_SECOND + 1):
        world.imports._unknown.take(world.clock.time)
    with pytest.raises(Overloaded) as caught:
        await world.imports.load("x")
    assert caught.value.retry_after > bounds.UNKNOWN_FORM_WAIT_SECONDS
    assert world.database.record_reads == []


# Wrong tries.


def test_wrong_tries_are_bounded_for_each_key_and_address() -> None:
    clock = StillClock(1_000.0)
    tries = WrongTries(clock)
    for _ in range(bounds.WRONG_TRIES_AT_ONCE):
        tries.begin("key", "192.0.2.1")
    with pytest.raises(Overloaded):
        tries.begin("key", "192.0.2.1")
    tries.begin("key", "192.0.2.2")
    tries.begin("other", "192.0.2.1")
    clock.time += 60 / bounds.WRONG_TRIES_PER_MINUTE
    tries.begin("key", "192.0.2.1")
    with pytest.raises(Overloaded) as caught:
        tries.begin("key", "192.0.2.1")
    assert 0 < caught.value.retry_after <= 60 / bounds.WRONG_TRIES_PER_MINUTE


def test_a_right_try_costs_nothing() -> None:
    tries = WrongTries(StillClock(1_000.0))
    for _ in range(100):
        tries.begin("key", "192.0.2.1")
        tries.forgive("key", "192.0.2.1")


@pytest.mark.parametrize(
    ("one", "other"),
    [("2001:db8::1", "2001:db8::2:3"), ("192.0.2.1", "::ffff:192.0.2.1"), ("", "no address"), ("", "x" * 100)],
)
def test_addresses_of_one_place_count_together(one: str, other: str) -> None:
    tries = WrongTries(StillClock(1_000.0))
    for _ in range(bounds.WRONG_TRIES_AT_ONCE):
        tries.begin("key", one)
    with pytest.raises(Overloaded):
        tries.begin("key", other)


def test_no_number_of_addresses_makes_it_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "WRONG_TRIES_REMEMBERED", 100)
    tries = WrongTries(StillClock(1_000.0))
    for number in range(1_000):
        tries.begin("key", f"192.0.{number // 256}.{number % 256}")
    assert len(tries._tries) == 100


@given(st.lists(st.floats(0, 30), max_size=60), st.integers(1, 20), st.floats(0.1, 10))
def test_a_throttle_never_lets_through_more_than_its_rate(pauses: list[float], burst: int, interval: float) -> None:
    throttle, now, taken = Throttle(interval, burst), 100.0, 0
    for pause in pauses:
        now += pause
        if throttle.delay(now) == 0:
            throttle.take(now)
            taken += 1
    assert taken <= burst + (now - 100.0) / interval + 1e-6
