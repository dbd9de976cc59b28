"""What a call of AdminService is, as a value: built by a function with plain arguments, made by either client."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

PAGE_SIZE = 200
"""Entries that a list asks for at once, unless told otherwise."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One call.

    rpc: its name in AdminService. request: may hold secrets. result: makes a value of the response. changes: whether
    it waits until the change is in force everywhere. repeatable: whether doing it twice comes to the same as once.
    """

    rpc: str
    request: Message = field(repr=False)
    result: Callable[[Any], T]
    changes: bool
    repeatable: bool


def reads(rpc: str, request: Message, result: Callable[[Any], T]) -> Call[T]:
    """A call that changes nothing."""
    return Call(rpc=rpc, request=request, result=result, changes=False, repeatable=True)


def changes(rpc: str, request: Message, result: Callable[[Any], T], *, repeatable: bool) -> Call[T]:
    """A call that changes something."""
    return Call(rpc=rpc, request=request, result=result, changes=True, repeatable=repeatable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """Some of a list's entries. next_page_token: what the next page is asked for with; empty: this is the last one."""

    entries: tuple[T, ...]
    next_page_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing(Generic[T]):
    """A list to read page by page. entries: makes values of those in a response."""

    rpc: str
    request: Any = field(repr=False)
    entries: Callable[[Any], Iterable[T]]

    def page(self, token: str) -> Call[Page[T]]:
        """The call for one page. token: the next_page_token of the page before; empty: the first page."""
        request = type(self.request)()
        request.CopyFrom(self.request)
        request.page_token = token
        return reads(self.rpc, request, self._page_from)

    def _page_from(self, response: Any) -> Page[T]:
        return Page(entries=tuple(self.entries(response)), next_page_token=response.next_page_token)
