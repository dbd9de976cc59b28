"""Python's own values, out of messages."""

from __future__ import annotations

from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp


def object_of(message: Struct) -> dict[str, Any]:
    """The JSON object as Python's own; whole numbers as int."""
    return {name: _plain(value) for name, value in message.fields.items()}


def _plain(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "struct_value":
            return object_of(value.struct_value)
        case "list_value":
            return [_plain(inner) for inner in value.list_value.values]
        case "string_value":
            return value.string_value
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "bool_value":
            return value.bool_value
        case _:
            return None


def name_of(enumeration: Any, number: int, prefix: str) -> str:
    """The value's name; its number where a newer server has values that this client does not know."""
    try:
        return str(enumeration.Name(number)).removeprefix(prefix)
    except ValueError:
        return str(number)


def seconds_of(message: Duration | Timestamp) -> float:
    """A duration in seconds; of a point in time, those since 1970."""
    return message.seconds + message.nanos / 1e9
