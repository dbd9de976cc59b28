"""The file of `keys import`: CSV with a header, or a JSON object on each line, as docs/cli.md describes both."""

from __future__ import annotations

import base64
import binascii
import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typer

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2
from latchgate_server.cli.failures import USAGE, fail
from latchgate_server.cli.parsing import claims_from, limits_from, tags_from, time_from
from latchgate_server.core import bounds

ROWS = 1_000_000
"""More than one command takes over."""

_HEX = re.compile(r"[0-9A-Fa-f]{64}")
_WORDS = ("key_id", "tenant_id", "display_name", "description", "owner", "default_user", "environment")
_LISTS = ("role_ids", "permissions", "resources")
_TIMES = ("expire_time", "rotate_by_time")
COLUMNS = ("sha256", "argon2", *_WORDS, *_LISTS, "ip_ranges", "limits", "tags", "claims", *_TIMES)
"""The names of columns, or of members of the object on a line."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key to import. line: where it begins in the file, from 1."""

    line: int
    key: pb.ImportedKey


@dataclass(frozen=True, slots=True)
class Refused:
    """What keeps a line from being imported. column: where it lies; empty for the line as a whole."""

    line: int
    column: str
    why: str


class _Wrong(Exception):
    """A value is malformed. Its message never quotes a hash."""

    def __init__(self, column: str, why: str) -> None:
        self.column, self.why = column, why
        super().__init__(why)


def read_file(lines: Iterable[str], tenant_id: str, now: float) -> tuple[list[Entry], list[Refused]]:
    """The keys in a file, and what is wrong with other lines. Ends the command where the file as a whole is no good.

    tenant_id: for lines that name none. now: Unix seconds, for times from now on.
    """
    entries: list[Entry] = []
    refused: list[Refused] = []
    for line, values in _rows(lines, refused):
        if len(entries) + len(refused) >= ROWS:
            fail(f"more than {ROWS} lines; split the file", USAGE)
        try:
            entries.append(Entry(line, _key_from(values, tenant_id, now)))
        except _Wrong as error:
            refused.append(Refused(line, error.column, error.why))
    return entries, refused + _repeated(entries)


def _rows(lines: Iterable[str], refused: list[Refused]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    numbered = enumerate(lines, 1)
    for number, first in numbered:
        if first.strip():
            rest = (line for _, line in numbered)
            if first.lstrip().startswith("{"):
                yield from _json_rows(number, first, rest, refused)
            else:
                yield from _csv_rows(number, first, rest, refused)


def _json_rows(
    number: int, first: str, rest: Iterable[str], refused: list[Refused]
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, text in enumerate([first, *rest], number):
        if not text.strip():
            continue
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            refused.append(Refused(line, "", "no JSON"))
            continue
        if not isinstance(values, dict):
            refused.append(Refused(line, "", "a JSON object is expected"))
        elif unknown := values.keys() - set(COLUMNS):
            refused.append(Refused(line, min(unknown)[: bounds.QUOTED_LENGTH], "no such column"))
        else:
            yield line, {name: value for name, value in values.items() if value is not None}


def _csv_rows(
    number: int, first: str, rest: Iterable[str], refused: list[Refused]
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    def chained() -> Iterator[str]:
        yield first
        yield from rest

    reader = csv.reader(chained(), strict=True)
    try:
        header = [name.strip() for name in next(reader)]
        if unknown := [name for name in header if name not in COLUMNS]:
            fail(f"no such column: {unknown[0][: bounds.QUOTED_LENGTH]!r}; there are {', '.join(COLUMNS)}", USAGE)
        if len(set(header)) < len(header):
            fail("a column is there twice", USAGE)
        while True:
            line = number + reader.line_num
            row = next(reader, None)
            if row is None:
                return
            if len(row) == len(header):
                yield line, {name: value for name, value in zip(header, row, strict=True) if value}
            elif row:
                refused.append(Refused(line, "", f"{len(row)} columns, and {len(header)} in the header"))
    except csv.Error as error:
        fail(f"line {number + reader.line_num - 1} is no CSV: {error}", USAGE)


def _key_from(values: Mapping[str, Any], tenant_id: str, now: float) -> pb.ImportedKey:
    """Raises _Wrong."""
    key = key_pb2.Key()
    for name in _WORDS:
        setattr(key, name, _word(values, name))
    key.tenant_id = key.tenant_id or tenant_id
    for name in _LISTS:
        getattr(key, name).extend(_list(values, name))
    key.ip_allowlist.ranges.extend(_list(values, "ip_ranges"))
    key.ip_allowlist.enabled = bool(key.ip_allowlist.ranges)
    key.limits.extend(_parsed("limits", lambda: limits_from(_list(values, "limits"), "limits")))
    key.tags.update(_tags(values))
    if "claims" in values:
        claims = values["claims"]
        text = claims if isinstance(claims, str) else json.dumps(claims)
        key.claims.CopyFrom(_parsed("claims", lambda: claims_from(text, "claims")))
    for name in _TIMES:
        if time := _word(values, name):
            getattr(key, name).CopyFrom(_parsed(name, lambda: time_from(time, name, now)))  # noqa: B023 - called at once
    sha256, argon2 = _word(values, "sha256"), _word(values, "argon2")
    if bool(sha256) == bool(argon2):
        raise _Wrong("", "either sha256 or argon2 is needed")
    if argon2:
        return pb.ImportedKey(key=key, argon2=argon2)
    return pb.ImportedKey(key=key, sha256=_digest(sha256))


def _word(values: Mapping[str, Any], name: str) -> str:
    return _text(values.get(name, ""), name).strip()


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or (not value.isascii() and _has_surrogates(value)):
        raise _Wrong(name, "a text is expected")
    return value


def _has_surrogates(value: str) -> bool:
    """JSON can escape halves of characters, which are no text."""
    return any("\ud800" <= symbol <= "\udfff" for symbol in value)


def _list(values: Mapping[str, Any], name: str) -> Sequence[str]:
    """Texts, apart by blanks or as a JSON list."""
    value = values.get(name, "")
    if isinstance(value, str):
        return value.split()
    if not isinstance(value, list):
        raise _Wrong(name, "a list of texts is expected")
    return [_text(one, name) for one in value]


def _tags(values: Mapping[str, Any]) -> Mapping[str, str]:
    value = values.get("tags", "")
    if isinstance(value, dict):
        return {_text(name, "tags"): _text(one, "tags") for name, one in value.items()}
    words = _list(values, "tags")
    tags: Mapping[str, str] = _parsed("tags", lambda: tags_from(words, "tags"))
    return tags


def _parsed(column: str, parse: Callable[[], Any]) -> Any:
    try:
        return parse()
    except typer.BadParameter as error:
        raise _Wrong(column, error.message) from None


def _digest(text: str) -> bytes:
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    try:
        digest = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != 32:
        raise _Wrong("sha256", "64 hexadecimal digits, or 32 bytes in base 64")
    return digest


def _repeated(entries: Sequence[Entry]) -> list[Refused]:
    seen: dict[tuple[str, str | bytes], int] = {}
    repeated = []
    for entry in entries:
        for column, value in (("key_id", entry.key.key.key_id), ("sha256", entry.key.sha256)):
            first = seen.setdefault((column, value), entry.line) if value else entry.line
            if first != entry.line:
                repeated.append(Refused(entry.line, column, f"the same as on line {first}"))
    return repeated
