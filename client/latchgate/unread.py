"""Values that are read out of a message field by field, when each is asked for the first time.

Most callers look at a few fields of an answer, and to read all of them takes longer than everything else that the
client does for a call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from google.protobuf.message import Message

T = TypeVar("T", bound="Unread")


class Unread:
    """The root of a frozen dataclass with slots, an instance of which `unread` can make of a message.

    From outside nothing tells it from one that was made of its fields: it compares, copies and pickles as such. In
    several threads a field may be read more than once, with equal values.
    """

    __slots__ = ("_message",)

    _kind: ClassVar[type[Message]]
    """The message's type."""

    _readers: ClassVar[Mapping[str, Callable[[Any], Any]]]
    """By a field's name, what reads it out of the message."""

    if not TYPE_CHECKING:  # it would take any misspelt attribute for one of these

        def __getattr__(self, name: str) -> Any:
            """Of a slot that is not set."""
            read = self._readers.get(name)
            if read is None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            message = self._message
            if isinstance(message, bytes):
                message = self._kind.FromString(message)
                object.__setattr__(self, "_message", message)
            value = read(message)
            object.__setattr__(self, name, value)
            return value


def unread(kind: type[T], message: Message | bytes, **known: object) -> T:
    """An instance whose fields are read later. message: may be serialised. known: fields that are not."""
    made = object.__new__(kind)
    object.__setattr__(made, "_message", message)
    for name, value in known.items():
        object.__setattr__(made, name, value)
    return made
