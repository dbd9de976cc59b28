"""How plain arguments become fields of messages, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

Setter = Callable[[Any, str, Any], None]
"""Puts a value into the named field of a message."""


def fill(message: Message, known: Mapping[str, tuple[str, Setter]], given: Mapping[str, Any]) -> list[str]:
    """Put the arguments given into a message; returns the names of the fields that they stand for.

    known: for each argument, its field and how it is set. Raises TypeError for an argument that is not among them.
    """
    names = []
    for argument, value in given.items():
        if argument not in known:
            raise TypeError(f"unexpected argument {argument!r}; there are {', '.join(known)}")
        name, put = known[argument]
        put(message, name, value)
        names.append(name)
    return names


def mask_of(names: Iterable[str]) -> FieldMask:
    """What an update changes. Raises ValueError where that is nothing."""
    mask = FieldMask(paths=names)
    if not mask.paths:
        raise ValueError("nothing to change: give at least one field")
    return mask


def put_plain(message: Any, name: str, value: Any) -> None:
    """A text, a number or a truth value."""
    setattr(message, name, value)


def put_texts(message: Any, name: str, value: Iterable[str]) -> None:
    """Several texts. One text would be taken for its letters, so it is refused."""
    if isinstance(value, str):
        raise TypeError(f"{name}: several texts are expected, such as [{value!r}]")
    getattr(message, name).extend(value)


def put_entries(message: Any, name: str, value: Mapping[str, Any]) -> None:
    """Names and values: tags, or a JSON object."""
    if value:
        getattr(message, name).update(value)


def put_time(message: Any, name: str, value: datetime | None) -> None:
    """A point in time; None leaves it unset. One without a zone could mean any, and is refused."""
    if value is None:
        return
    if value.tzinfo is None:
        raise ValueError(f"{name}: a datetime with a time zone is expected, such as datetime.now(UTC)")
    getattr(message, name).FromDatetime(value)


def duration_to(value: timedelta) -> Duration:
    """The message for a length of time."""
    duration = Duration()
    duration.FromTimedelta(value)
    return duration


def time_from(message: Timestamp) -> datetime:
    """A point in time, in UTC."""
    return message.ToDatetime(UTC)


def optional_time_from(message: Any, name: str) -> datetime | None:
    """The same of a field that may be unset."""
    return time_from(getattr(message, name)) if message.HasField(name) else None
