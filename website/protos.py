"""The protos with their comments, as descriptors."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from google.api.annotations_pb2 import http
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

PROTOS = Path(__file__).resolve().parents[1] / "protos"

# The numbers of fields in descriptor.proto, of which the paths in SourceCodeInfo are made.
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
_FIELDS, _NESTED, _NESTED_ENUMS, _VALUES, _METHODS = 2, 3, 4, 2, 2


@dataclass(frozen=True, slots=True)
class Member:
    """A field or a value, with what its comment says. type: of a field."""

    name: str
    type: str
    comment: str


@dataclass(frozen=True, slots=True)
class Type:
    """A message or an enumeration. name: with those that it stands in, `Limit.Period`."""

    name: str
    comment: str
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """An RPC. request, response: types; http: `POST /v1/keys:verify`, or empty where there is no such form."""

    name: str
    comment: str
    request: str
    response: str
    http: str


@dataclass(frozen=True, slots=True)
class Service:
    """A service with its calls."""

    name: str
    comment: str
    calls: tuple[Call, ...]


class Proto:
    """One file."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self._file = file
        self._comments = {
            tuple(location.path): " ".join(location.leading_comments.split())
            for location in file.source_code_info.location
        }

    def services(self) -> Iterator[Service]:
        """Its services, in their order."""
        for place, service in enumerate(self._file.service):
            at = (_SERVICES, place)
            calls = tuple(
                Call(
                    method.name,
                    self._comments.get((*at, _METHODS, number), ""),
                    ("stream " if method.client_streaming else "") + _short(method.input_type),
                    ("stream " if method.server_streaming else "") + _short(method.output_type),
                    _http(method.options.Extensions[http]),  # type: ignore[index]  # its stubs know no extensions
                )
                for number, method in enumerate(service.method)
            )
            yield Service(service.name, self._comments.get(at, ""), calls)

    def types(self) -> Iterator[Type]:
        """Its messages and enumerations, those inside of others after them."""
        for place, message in enumerate(self._file.message_type):
            yield from self._message(message, (_MESSAGES, place), "")
        for place, enum in enumerate(self._file.enum_type):
            yield self._enum(enum, (_ENUMS, place), "")

    def _message(self, message: DescriptorProto, at: tuple[int, ...], within: str) -> Iterator[Type]:
        if message.options.map_entry:
            return
        maps = {inner.name: inner for inner in message.nested_type if inner.options.map_entry}
        members = tuple(
            Member(field.name, _type_of(field, maps), self._comments.get((*at, _FIELDS, number), ""))
            for number, field in enumerate(message.field)
        )
        name = within + message.name
        yield Type(name, self._comments.get(at, ""), members)
        for number, inner in enumerate(message.nested_type):
            yield from self._message(inner, (*at, _NESTED, number), f"{name}.")
        for number, enum in enumerate(message.enum_type):
            yield self._enum(enum, (*at, _NESTED_ENUMS, number), f"{name}.")

    def _enum(self, enum: EnumDescriptorProto, at: tuple[int, ...], within: str) -> Type:
        members = tuple(
            Member(value.name, "", self._comments.get((*at, _VALUES, number), ""))
            for number, value in enumerate(enum.value)
        )
        return Type(within + enum.name, self._comments.get(at, ""), members)


@cache
def protos() -> Mapping[str, Proto]:
    """The files of `latchgate.v1`, by their names without folder and suffix."""
    folder = PROTOS / "latchgate" / "v1"
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "descriptors"
        paths = [str(path) for path in sorted(folder.glob("*.proto"))]
        subprocess.run(
            [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", "--include_source_info", f"-o{out}", *paths],
            check=True,
        )
        files = FileDescriptorSet.FromString(out.read_bytes())
    return {Path(file.name).stem: Proto(file) for file in files.file}


def _type_of(field: FieldDescriptorProto, maps: Mapping[str, DescriptorProto]) -> str:
    entry = maps.get(field.type_name.rpartition(".")[2])
    if entry is not None:
        key, value = entry.field
        return f"map of {_type_of(key, {})} to {_type_of(value, {})}"
    name = _short(field.type_name) or FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {name}"
    return f"optional {name}" if field.proto3_optional else name


def _short(name: str) -> str:
    """A type's name without the package of this API or of protobuf."""
    return name.removeprefix(".latchgate.v1.").removeprefix(".google.protobuf.").removeprefix(".")


def _http(rule: HttpRule) -> str:
    verb = rule.WhichOneof("pattern")
    return f"{verb.upper()} {getattr(rule, verb)}" if verb else ""
