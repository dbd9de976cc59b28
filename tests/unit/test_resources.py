"""Resources: which paths have a plain form, and what a restriction lets through."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchgate_server.core import bounds
from latchgate_server.core.resources import ResourceScope, is_resource, is_restriction
from tests.unit.strategies import ANY_TEXT

# The plain form.


@pytest.mark.parametrize("text", ["sites", "sites/berlin", "a/b/c/d", "...", ".hidden", "a..b/c", "stra\u00dfe/1"])
def test_a_plain_path_is_a_resource_and_itself_a_restriction(text: str) -> None:
    assert is_resource(text)
    assert is_restriction(text)


@pytest.mark.parametrize("text", ["sites/*", "sites/berlin/*"])
def test_a_path_with_slash_star_is_a_restriction_but_no_resource(text: str) -> None:
    assert is_restriction(text)
    assert not is_resource(text)


@pytest.mark.parametrize("text", ["", "/", "*", "/*", "a*", "a/**", "a/*/*", "*/a", "a/*/b", "../*", "a//*", "a/%2e/*"])
def test_anything_else_is_no_restriction(text: str) -> None:
    assert not is_restriction(text)


def test_a_resource_may_be_as_long_as_its_bound_and_no_longer() -> None:
    assert is_resource("x" * bounds.RESOURCE_LENGTH)
    assert not is_resource("x" * (bounds.RESOURCE_LENGTH + 1))


@given(ANY_TEXT)
def test_any_text_can_be_asked_about(text: str) -> None:
    assert is_restriction(text) >= is_resource(text)
    assert not ResourceScope(["sites/*"]).contains(text)


# What a restriction lets through. `fresh` is a name that none spells out, so that no enumeration passes for a `/*`.


def _paths(segments: tuple[str, ...], depth: int) -> list[str]:
    return ["/".join(path) for length in range(1, depth + 1) for path in product(segments, repeat=length)]


def _rule(restriction: str, path: str) -> bool:
    """The documented rule for one restriction and one path, word for word."""
    return path.startswith(restriction[:-1]) if restriction.endswith("/*") else path == restriction


PATHS = _paths(("sites", "berlin", "fresh"), 3)
RESTRICTIONS = [*_paths(("sites", "berlin"), 3), *(f"{stem}/*" for stem in _paths(("sites", "berlin"), 2))]
STANDS_FOR = {restriction: {path for path in PATHS if _rule(restriction, path)} for restriction in RESTRICTIONS}


@given(st.lists(st.sampled_from(RESTRICTIONS), max_size=5))
def test_a_scope_contains_exactly_what_its_restrictions_stand_for(restrictions: list[str]) -> None:
    scope = ResourceScope(restrictions)
    assert {path for path in PATHS if scope.contains(path)} == set().union(*(STANDS_FOR[r] for r in restrictions))


@given(st.lists(st.sampled_from(RESTRICTIONS), max_size=5))
def test_a_scope_covers_a_restriction_only_where_it_contains_all_that_one_stands_for(restrictions: list[str]) -> None:
    scope = ResourceScope(restrictions)
    contained = {path for path in PATHS if scope.contains(path)}
    assert {r for r in RESTRICTIONS if scope.covers(r)} == {r for r in RESTRICTIONS if STANDS_FOR[r] <= contained}


def test_below_a_path_is_neither_the_path_itself_nor_a_longer_name() -> None:
    scope = ResourceScope(["sites/berlin/*"])
    assert scope.contains("sites/berlin/orders/17")
    assert not scope.contains("sites/berlin")
    assert not scope.contains("sites/berlinale/orders")
    assert not scope.contains("sites/paris/orders")


def test_a_restriction_is_no_resource_to_ask_for() -> None:
    assert not ResourceScope(["sites/berlin/*"]).contains("sites/berlin/*")


# Ways around a restriction.


@pytest.mark.parametrize(
    "text",
    [
        *("sites/berlin/../paris", "sites/berlin/./orders", "sites/berlin/..", "sites/berlin/", "sites/berlin//orders"),
        *("sites/berlin/..\\paris", "sites/berlin/%2e%2e/paris", "sites/berlin/%2E./paris", "sites/berlin/..%2fparis"),
        *("sites/berlin/orders?x=../paris", "sites/berlin/orders#x", "sites/berlin/orders\0", "sites/berlin/orders\n"),
        *("sites/berlin/ orders", "/sites/berlin/orders", "./sites/berlin/orders", "sites/paris/../berlin/orders"),
    ],
)
def test_a_path_that_is_not_plain_is_never_in_scope(text: str) -> None:
    assert not ResourceScope(["sites/*", "sites/berlin/*", text]).contains(text)


@given(
    st.lists(st.sampled_from(["orders", "17", "a.b"]), max_size=4), st.sampled_from(["", ".", ".."]), st.integers(0, 4)
)
def test_an_empty_or_dotted_segment_anywhere_is_never_in_scope(path: list[str], segment: str, place: int) -> None:
    path.insert(place, segment)
    assert not ResourceScope(["sites/*"]).contains("/".join(["sites", *path]))


@given(st.integers(0, len("sites/berlin/orders")), st.sampled_from("\\%?#* \x7f" + "".join(map(chr, range(32)))))
def test_a_strange_character_anywhere_is_never_in_scope(place: int, symbol: str) -> None:
    path = "sites/berlin/orders"
    assert not ResourceScope(["sites/*"]).contains(path[:place] + symbol + path[place:])
