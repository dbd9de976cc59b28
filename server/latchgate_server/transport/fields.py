"""Checks of single fields of requests against core/bounds.py. All violations of a request are told at once."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Sized
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, cast
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from latchgate_server.core import bounds
from latchgate_server.core.addresses import MalformedAddress, parse_range
from latchgate_server.core.errors import InvalidRequest, Violation
from latchgate_server.core.model import KeyState
from latchgate_server.core.permissions import is_grant
from latchgate_server.core.resources import is_restriction

_TENANT_ID = re.compile(r"[a-z][a-z0-9-]*")
_ID = re.compile(r"[a-z][a-z0-9_.-]*")
_LIMIT_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_CAPABILITY = re.compile(r"[A-Za-z0-9_.:/-]+")
_LINE_BREAKS = frozenset("\n\t")


class Updates(Protocol):
    """A request with an update mask."""

    @property
    def update_mask(self) -> FieldMask:
        """What to change."""
        ...

    def HasField(self, field_name: Literal["update_mask"]) -> bool:  # noqa: N802 - protobuf's name
        """Whether there is a mask."""
        ...


class Fields:
    """Collects what is wrong with a request's fields; `check` raises it.

    Each method takes the field's path and value, notes what is wrong, and returns the value in the core's form.
    """

    def __init__(self) -> None:
        self._violations: list[Violation] = []

    def wrong(self, path: str, description: str) -> None:
        """Note a violation."""
        self._violations.append(Violation(path, description))

    def check(self) -> None:
        """Raise InvalidRequest unless every field was right."""
        if self._violations:
            raise InvalidRequest(self._violations)

    def text(self, path: str, value: str, limit: int, *, lines: bool = False) -> str:
        """Text of up to `limit` characters without control characters, but line breaks where `lines`."""
        self.length(path, value, limit)
        allowed = _LINE_BREAKS if lines else frozenset()
        if any(unicodedata.category(symbol) == "Cc" and symbol not in allowed for symbol in value):
            self.wrong(path, "no control characters")
        return value

    def length(self, path: str, value: str, limit: int) -> str:
        """Anything of up to `limit` characters."""
        if len(value) > limit:
            self.wrong(path, f"at most {limit} characters, not {len(value)}")
        return value

    def tenant_id(self, path: str, value: str) -> str:
        """The id of a tenant."""
        return self._named(path, value, bounds.ID_LENGTH, _TENANT_ID, "of a-z, 0-9 and '-', starting with a letter")

    def id(self, path: str, value: str) -> str:
        """The id of a plan or role."""
        form = "of a-z, 0-9, '-', '_' and '.', starting with a letter"
        return self._named(path, value, bounds.ID_LENGTH, _ID, form)

    def limit_name(self, path: str, value: str) -> str:
        """The name of a limit."""
        form = "of letters, digits, '-', '_' and '.'"
        return self._named(path, value, bounds.ID_LENGTH, _LIMIT_NAME, form)

    def _named(self, path: str, value: str, limit: int, pattern: re.Pattern[str], form: str) -> str:
        if len(value) > limit or not pattern.fullmatch(value):
            self.wrong(path, f"1 to {limit} {form}")
        return value

    def key_id(self, path: str, value: str) -> str:
        """A key id to look up: any text that could be one.

        Whoever gives the whole credential is not answered with it: no key id has a dot.
        """
        if not 0 < len(value) <= bounds.KEY_ID_LENGTH or not value.isascii() or not value.isprintable() or "." in value:
            self.wrong(path, f"a key id of 1 to {bounds.KEY_ID_LENGTH} characters, without the dot and the secret")
        return value

    def uuid(self, path: str, value: str) -> UUID | None:
        """A UUID, or None where the field is empty."""
        if not value:
            return None
        try:
            return UUID(value)
        except ValueError:
            self.wrong(path, "a UUID such as 6a0f2a52-0f5c-4f0e-9a57-1f6d3c1f9a10")
            return None

    def time(self, path: str, value: Timestamp) -> datetime | None:
        """A point in time."""
        try:
            return value.ToDatetime(tzinfo=UTC)
        except (ValueError, OverflowError):
            self.wrong(path, "a time between the years 1 and 9999")
            return None

    def seconds(self, path: str, value: Duration, limit: float) -> float:
        """A duration of at least a microsecond and up to `limit` seconds, in whole microseconds, as it is told back."""
        nanoseconds = value.seconds * 10**9 + value.nanos
        if not 1_000 <= nanoseconds <= limit * 1e9:
            self.wrong(path, f"at least a microsecond and at most {limit:.0f} seconds")
        return round(nanoseconds / 1_000) / 1e6

    def number(self, path: str, value: int, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        if not low <= value <= high:
            self.wrong(path, f"{low} to {high}")
        return value

    def paths(self, request: Updates, message: Message, changeable: Collection[str]) -> Sequence[str]:
        """Which of the `changeable` fields of its `message` an update names.

        Those in its mask, of which `*` stands for all; without a mask, those that are set.
        """
        if not request.HasField("update_mask"):
            return [field.name for field, _ in message.ListFields() if field.name in changeable]
        self._count("update_mask", request.update_mask.paths, bounds.MASK_PATHS)
        paths = list(request.update_mask.paths[: bounds.MASK_PATHS])
        for path in paths:
            if path not in changeable and path != "*":
                self.wrong("update_mask", f"{path[: bounds.QUOTED_LENGTH]!r} is no field that can be changed")
        return list(changeable) if "*" in paths else [path for path in paths if path in changeable]

    def grants(self, path: str, values: Sequence[str]) -> tuple[str, ...]:
        """Permissions and patterns."""
        form = f"a permission such as orders.read, or a pattern such as orders.*, of up to {bounds.PERMISSION_LENGTH}"
        return self._each(path, values, bounds.PERMISSIONS, is_grant, form + " characters")

    def resources(self, path: str, values: Sequence[str]) -> tuple[str, ...]:
        """Restrictions to resources."""
        form = f"a path such as sites/berlin or sites/berlin/*, of up to {bounds.RESOURCE_LENGTH} characters"
        return self._each(path, values, bounds.RESOURCES, is_restriction, form)

    def capabilities(self, path: str, values: Sequence[str]) -> tuple[str, ...]:
        """Capabilities of a plan."""

        def fits(value: str) -> bool:
            return len(value) <= bounds.CAPABILITY_LENGTH and _CAPABILITY.fullmatch(value) is not None

        form = f"1 to {bounds.CAPABILITY_LENGTH} of letters, digits and '_.:/-'"
        return self._each(path, values, bounds.CAPABILITIES, fits, form)

    def role_ids(self, path: str, values: Sequence[str]) -> tuple[str, ...]:
        """Ids of roles that a key holds."""

        def fits(value: str) -> bool:
            return len(value) <= bounds.ID_LENGTH and _ID.fullmatch(value) is not None

        return self._each(path, values, bounds.ROLES_PER_KEY, fits, "the id of a role")

    def ranges(self, path: str, values: Sequence[str]) -> tuple[str, ...]:
        """Addresses and CIDR ranges."""
        self._count(path, values, bounds.ADDRESS_RANGES)
        for place, value in enumerate(values[: bounds.ADDRESS_RANGES]):
            try:
                parse_range(value)
            except MalformedAddress as error:
                self.wrong(f"{path}[{place}]", str(error))
        return _unique(values)

    def tags(self, path: str, values: Mapping[str, str]) -> Mapping[str, str]:
        """Names and values for people and filters."""
        self._count(path, values, bounds.TAGS)
        for name, value in values.items():
            if not name:
                self.wrong(path, "no empty names")
            self.text(path, name, bounds.TAG_NAME_LENGTH)
            self.text(path, value, bounds.TAG_VALUE_LENGTH)
        return dict(sorted(values.items()))

    def claims(self, path: str, value: Struct) -> Mapping[str, object]:
        """A JSON object that rides along with an identity."""
        try:
            claims = _plain_object(value, bounds.CLAIMS_DEPTH)
            size = len(json.dumps(claims, ensure_ascii=False, allow_nan=False).encode())
        except ValueError:
            self.wrong(path, f"JSON nested at most {bounds.CLAIMS_DEPTH} deep, of finite numbers, without NUL")
            return {}
        if size > bounds.CLAIMS_BYTES:
            self.wrong(path, f"at most {bounds.CLAIMS_BYTES} bytes as JSON, not {size}")
        return claims

    def _each(
        self, path: str, values: Sequence[str], most: int, fits: Callable[[str], bool], form: str
    ) -> tuple[str, ...]:
        self._count(path, values, most)
        for place, value in enumerate(values[:most]):
            if not fits(value):
                self.wrong(f"{path}[{place}]", form)
        return _unique(values)

    def states(self, path: str, values: Sequence[int]) -> tuple[KeyState, ...]:
        """States of keys, to filter by."""
        self._count(path, values, bounds.FILTER_STATES)
        states = []
        for place, value in enumerate(values[: bounds.FILTER_STATES]):
            try:
                states.append(KeyState(value))
            except ValueError:
                self.wrong(f"{path}[{place}]", "active, disabled or revoked")
        return tuple(states)

    def _count(self, path: str, values: Sized, most: int) -> None:
        if len(values) > most:
            self.wrong(path, f"at most {most} entries, not {len(values)}")


def set_claims(message: Struct, claims: Mapping[str, object]) -> None:
    """Put claims, as `Fields.claims` gave them, into a message; none leave it unset."""
    if claims:
        message.update(cast(Mapping[str, Any], claims))


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _plain_object(value: Struct, depth: int) -> dict[str, object]:
    """The object as Python's own. Raises ValueError as `_plain` does."""
    if any("\0" in name for name in value.fields):
        raise ValueError("NUL")
    return {name: _plain(inner, depth) for name, inner in value.fields.items()}


def _plain(value: Value, depth: int) -> object:
    """The value as Python's own; whole numbers as int. Raises ValueError for what is not JSON or nested too deep."""
    if depth == 0:
        raise ValueError("nested too deep")
    match value.WhichOneof("kind"):
        case "struct_value":
            return _plain_object(value.struct_value, depth - 1)
        case "list_value":
            return [_plain(inner, depth - 1) for inner in value.list_value.values]
        case "string_value":
            if "\0" in value.string_value:
                raise ValueError("NUL")
            return value.string_value
        case "number_value":
            number = value.number_value
            if not math.isfinite(number):
                raise ValueError("not finite")
            return int(number) if number.is_integer() and abs(number) < 2**53 else number
        case "bool_value":
            return value.bool_value
        case _:
            return None
