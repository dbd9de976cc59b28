"""Where in a request its key is: `x-api-key`, `api-key`, then `authorization` with the scheme Bearer or ApiKey.

The first of them that has a key wins, whether it is any good or not; several that differ in one header are none. The
same order and the same words as for requests through Envoy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

HeaderValues = Callable[[str], Sequence[str]]
"""Gives the values of the header of a name in lower case, of which each may be several joined by commas."""

HEADERS = ("x-api-key", "api-key")
AUTHORIZATION = "authorization"
CHALLENGE = "ApiKey, Bearer"
"""What WWW-Authenticate says (RFC 9110, section 11.6.1)."""

_SCHEMES = frozenset({"bearer", "apikey"})
_KEY_ID = re.compile(r"[a-z][a-z0-9_]{0,31}_[0-9A-Za-z]{22}")


@dataclass(frozen=True, slots=True)
class Found:
    """What a request presents.

    key: empty where there is none. is_ambiguous: one header has several that differ. headers: names of those that
    nobody behind the check needs to see.
    """

    key: str = field(default="", repr=False)
    is_ambiguous: bool = False
    headers: tuple[str, ...] = HEADERS


def find_key(values: HeaderValues) -> Found:
    """What a request presents. Never raises."""
    winner: Sequence[str] = ()
    for name in HEADERS:
        winner = winner or _distinct(values(name))
    authorized = _authorized(values)
    # Another service's token is left in place where ours came some other way.
    hides = bool(authorized) and (not winner or any(map(_is_ours, authorized)))
    winner = winner or authorized
    return Found(
        key=winner[0] if len(winner) == 1 else "",
        is_ambiguous=len(winner) > 1,
        headers=(*HEADERS, AUTHORIZATION) if hides else HEADERS,
    )


def _authorized(values: HeaderValues) -> Sequence[str]:
    """The keys of an authorization header that has one of our schemes."""
    keys, has_scheme = [], False
    for value in _distinct(values(AUTHORIZATION)):
        scheme, _, rest = value.partition(" ")
        if scheme.lower() in _SCHEMES:
            has_scheme = True
            keys.append(rest.strip())
        else:
            keys.append(value)
    return tuple(dict.fromkeys(filter(None, keys))) if has_scheme else ()


def _distinct(values: Iterable[str]) -> Sequence[str]:
    """The values that differ, of headers that may be joined by commas (RFC 9110, section 5.3)."""
    parts = (part.strip(" \t") for value in values for part in value.split(","))
    return tuple(dict.fromkeys(filter(None, parts)))


def _is_ours(key: str) -> bool:
    return _KEY_ID.fullmatch(key.partition(".")[0]) is not None
