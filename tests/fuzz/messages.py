"""Random messages of any kind, out of its descriptor: half of what is in them is plausible, the rest is not.

Plausible is what fields of that name may hold, such as ids of things that exist. The rest is the ends of every range,
texts of one character too many, NUL, what looks alike, lists that are too long, and whatever Hypothesis thinks of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

Words = Mapping[str, Sequence[str]]
"""What fields of a name may hold."""

_DEPTH = 4
_PRESENT = st.sampled_from((True, True, False))
_TOO_MANY = 1_001

_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_USUAL = (0, 1, 2, 5, 60, 1_000, 4_102_444_800)
_HOSTILE = (
    "",
    "\0",
    " ",
    ".",
    "*",
    "..",
    "a" * 64,
    "a" * 201,
    "a" * 5_000,
    "%00",
    "'; DROP TABLE keys; --",
    "../../etc/passwd",
    "${jndi:ldap://x}",
    "{{7*7}}",
    "\u0430cme",
    "\u202e",
    "\uffff",
    "\U0001f511",
    "null",
    "NaN",
    "1e999",
    "::1",
    "0.0.0.0/0",
    "::ffff:192.0.2.1",
    "latchgate.*",
    "orders.*",
    "a AND (b OR NOT c)",
    "(" * 40,
    "2026-01-01T00:00:00Z",
    "\r\nx-latchgate-tenant: latchgate",
)


def messages(descriptor: Descriptor, words: Words) -> st.SearchStrategy[Any]:
    """Messages of this kind."""

    @st.composite
    def filled(draw: st.DrawFn) -> Message:
        message: Message = GetMessageClass(descriptor)()
        _fill(draw, message, words, _DEPTH)
        return message

    return filled()


def _fill(draw: st.DrawFn, message: Message, words: Words, depth: int) -> None:
    for field in cast("Sequence[FieldDescriptor]", message.DESCRIPTOR.fields):
        if not draw(_PRESENT) or (field.message_type is not None and depth == 0):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            _fill_map(draw, getattr(message, field.name), field.message_type, words, depth)
        elif field.is_repeated:
            _fill_list(draw, getattr(message, field.name), field, words, depth)
        elif field.message_type is not None:
            getattr(message, field.name).SetInParent()
            _fill(draw, getattr(message, field.name), words, depth - 1)
        else:
            setattr(message, field.name, draw(_value(field, words)))


def _fill_list(draw: st.DrawFn, values: Any, field: FieldDescriptor, words: Words, depth: int) -> None:
    count = draw(st.integers(0, 3))
    for _ in range(count):
        if field.message_type is not None:
            _fill(draw, values.add(), words, depth - 1)
        else:
            values.append(draw(_value(field, words)))
    if count and draw(st.integers(0, 20)) == 0:
        values.extend([values[0]] * _TOO_MANY)


def _fill_map(draw: st.DrawFn, values: Any, entry: Descriptor, words: Words, depth: int) -> None:
    key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
    for _ in range(draw(st.integers(0, 3))):
        name = draw(_value(key, words))
        if value.message_type is not None:
            _fill(draw, values[name], words, depth - 1)
        else:
            values[name] = draw(_value(value, words))


def _value(field: FieldDescriptor, words: Words) -> st.SearchStrategy[Any]:
    """Values of a field that holds no message."""
    kind = field.cpp_type
    if kind in _INTEGERS:
        low, high = _INTEGERS[kind]
        usual = [number for number in _USUAL if low <= number <= high]
        return st.sampled_from([*usual, low, high]) | st.integers(low, high)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        assert field.enum_type is not None
        known = [value.number for value in field.enum_type.values]
        return st.sampled_from([*known, *known, -1, 99])
    others: Mapping[int, Callable[[], st.SearchStrategy[Any]]] = {
        FieldDescriptor.CPPTYPE_BOOL: st.booleans,
        FieldDescriptor.CPPTYPE_DOUBLE: st.floats,
        FieldDescriptor.CPPTYPE_FLOAT: lambda: st.floats(width=32),
    }
    if kind in others:
        return others[kind]()
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=100) | st.sampled_from([bytes(32), bytes(5_000)])
    hostile = st.sampled_from(_HOSTILE) | st.text(max_size=80)
    plausible = words.get(field.name)
    return st.sampled_from(plausible) | hostile if plausible else hostile
