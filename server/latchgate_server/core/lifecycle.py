"""What may be done to a key in which state.

    ACTIVE   <-> DISABLED    enable, disable; either twice is no error
    any       -> REVOKED     revoke; for good, and twice is no error, so nothing here refuses it

A revoked key takes no change but revoking, deleting, and new words for people: display name, description, tags.
"""

from __future__ import annotations

from collections.abc import Collection

from latchgate_server.core.errors import IllegalTransition
from latchgate_server.core.model import KeyState

_FIELDS_OF_REVOKED = frozenset({"display_name", "description", "tags"})


def enabled(state: KeyState) -> KeyState:
    """The state after enabling. Raises IllegalTransition for a revoked key."""
    return _unless_revoked(state, KeyState.ACTIVE, "enabled")


def disabled(state: KeyState) -> KeyState:
    """The state after disabling. Raises IllegalTransition for a revoked key."""
    return _unless_revoked(state, KeyState.DISABLED, "disabled")


def check_expiry(state: KeyState) -> None:
    """Raise IllegalTransition for a key that can no longer expire."""
    _unless_revoked(state, state, "expired")


def check_update(state: KeyState, fields: Collection[str]) -> None:
    """Raise IllegalTransition where a key in this state does not take a change of these fields of Key."""
    if not _FIELDS_OF_REVOKED.issuperset(fields):
        _unless_revoked(state, state, "updated, except in display_name, description and tags")


def check_rotation(state: KeyState, *, expired: bool, has_successor: bool) -> None:
    """Raise IllegalTransition unless the key is active, unexpired and without a successor."""
    if state is not KeyState.ACTIVE:
        raise IllegalTransition(state, "rotated")
    if expired:
        raise IllegalTransition(state, "rotated", because="expired")
    if has_successor:
        raise IllegalTransition(state, "rotated", because="rotated already")


def _unless_revoked(state: KeyState, then: KeyState, action: str) -> KeyState:
    if state is KeyState.REVOKED:
        raise IllegalTransition(state, action)
    return then
