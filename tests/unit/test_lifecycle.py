"""The states of a key: which change each of them takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from latchgate_server.core.errors import IllegalTransition
from latchgate_server.core.lifecycle import check_expiry, check_update, disabled, enabled
from latchgate_server.core.model import Key, KeyState

UNREVOKED = [KeyState.ACTIVE, KeyState.DISABLED]
FIELDS = sorted(field.name for field in dataclasses.fields(Key))
WORDS_FOR_PEOPLE = {"display_name", "description", "tags"}


@pytest.mark.parametrize("state", UNREVOKED)
def test_enabling_makes_active_and_twice_is_no_error(state: KeyState) -> None:
    assert enabled(state) is KeyState.ACTIVE


@pytest.mark.parametrize("state", UNREVOKED)
def test_disabling_makes_disabled_and_twice_is_no_error(state: KeyState) -> None:
    assert disabled(state) is KeyState.DISABLED


@pytest.mark.parametrize("change", [enabled, disabled, check_expiry])
def test_a_revoked_key_is_never_enabled_disabled_or_expired(change: Callable[[KeyState], object]) -> None:
    with pytest.raises(IllegalTransition, match="revoked") as raised:
        change(KeyState.REVOKED)
    assert raised.value.state is KeyState.REVOKED


@pytest.mark.parametrize("state", UNREVOKED)
def test_any_other_key_can_expire_and_takes_every_change(state: KeyState) -> None:
    check_expiry(state)
    check_update(state, FIELDS)


def test_a_revoked_key_takes_new_words_for_people_and_an_empty_change() -> None:
    check_update(KeyState.REVOKED, WORDS_FOR_PEOPLE)
    check_update(KeyState.REVOKED, ())


@pytest.mark.parametrize("field", sorted(set(FIELDS) - WORDS_FOR_PEOPLE))
def test_a_revoked_key_takes_no_other_change_also_not_beside_an_allowed_one(field: str) -> None:
    with pytest.raises(IllegalTransition):
        check_update(KeyState.REVOKED, {field})
    with pytest.raises(IllegalTransition):
        check_update(KeyState.REVOKED, {field, "tags"})
