"""Page tokens: where a list goes on, bound to the query that they were issued for and proof against tampering."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

from latchgate_server.admin.access import Caller
from latchgate_server.core import bounds
from latchgate_server.core.errors import InvalidRequest
from latchgate_server.core.ports import ListPosition
from latchgate_server.hashing import Pepper, Peppers

_MAC_BYTES = 16
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class PageRequest:
    """size: as asked for, 0 for the default. token: empty for the first page."""

    size: int
    token: str

    @property
    def limit(self) -> int:
        """How many items to give. Raises InvalidRequest for a negative size."""
        if self.size < 0:
            raise InvalidRequest.of("page_size", "0 or more expected")
        return min(self.size, bounds.PAGE_SIZE) or bounds.PAGE_SIZE_DEFAULT


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Some items, and the token for those after them; empty on the last page."""

    items: Sequence[Item]
    next_token: str


class PageTokens:
    """Issues and reads page tokens."""

    def __init__(self, peppers: Peppers) -> None:
        self._peppers = peppers

    def start(self, caller: Caller, query: str, page: PageRequest) -> str:
        """The position at which the page begins; empty for the first.

        query: everything that decides which items the list has, as text.
        Raises InvalidRequest for a token that was not issued for this caller's view of this query.
        """
        if not page.token:
            return ""
        raw = _decoded(page.token)
        mac, position = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not any(hmac.compare_digest(mac, _mac(pepper, caller, query, position)) for pepper in self._peppers):
            raise InvalidRequest.of("page_token", "not one that this list gave; ask for the first page again")
        return position.decode()

    def page(
        self, caller: Caller, query: str, found: Sequence[Item], limit: int, position: Callable[[Item], str]
    ) -> Page[Item]:
        """The page out of `found`, of which one more was read than is given.

        position: what `start` shall return for the page after an item.
        """
        items = found[:limit]
        if len(found) <= limit:
            return Page(items, "")
        at = position(items[-1]).encode()
        mac = _mac(self._peppers.current, caller, query, at)
        return Page(items, base64.urlsafe_b64encode(mac + at).decode("ascii"))


def position_to(position: ListPosition) -> str:
    """The position as a page token holds it: the number, and the time in microseconds since 1970 where there is one."""
    if position.time is None:
        return str(position.number)
    return f"{position.number}@{(position.time - _EPOCH) // timedelta(microseconds=1)}"


def position_from(text: str) -> ListPosition | None:
    """The inverse of `position_to`; None for the first page."""
    if not text:
        return None
    number, _, time = text.partition("@")
    return ListPosition(int(number), _EPOCH + timedelta(microseconds=int(time)) if time else None)


def _decoded(token: str) -> bytes:
    """The bytes of a token; none for one that we cannot have written, as decoding passes over strange symbols."""
    try:
        raw = base64.urlsafe_b64decode(token.encode("ascii"))
    except (UnicodeEncodeError, binascii.Error):
        return b""
    return raw if base64.urlsafe_b64encode(raw).decode("ascii") == token else b""


def _mac(pepper: Pepper, caller: Caller, query: str, position: bytes) -> bytes:
    view = repr((caller.method, caller.only_tenant, caller.only_owner, query)).encode()
    # The length keeps what is view and what is position apart.
    content = len(view).to_bytes(8) + view + position
    return hmac.digest(pepper.derive("page token"), content, "sha256")[:_MAC_BYTES]
