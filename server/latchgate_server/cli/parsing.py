"""What is typed on the command line, as the values that requests hold. What is malformed raises typer.BadParameter."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import datetime
from typing import NoReturn

import typer
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from latchgate.v1 import key_pb2
from latchgate_server.cli.text import PERIODS, UNITS

_DURATION = re.compile(rf"([0-9]{{1,12}}(?:\.[0-9]{{1,6}})?)({'|'.join(UNITS)})")
_RATE = re.compile(r"([0-9]{1,18})/([^:]*)(?::([0-9]{1,18}))?")
_LARGEST_EXACT = 2**53
# What a Timestamp can hold: from 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z.
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799


def duration_from(text: str, option: str) -> Duration:
    """`500ms`, `60s`, `5m`, `12h`, `90d`, `2w`."""
    match = _DURATION.fullmatch(text)
    if match is None:
        _refuse(option, f"{text!r} is no duration such as 60s, 5m, 12h or 90d")
    duration = Duration()
    duration.FromMicroseconds(round(float(match[1]) * UNITS[match[2]]))
    return duration


def time_from(text: str, option: str, now: float, *, past: bool = False) -> Timestamp:
    """A point in time: RFC 3339, or a duration from now, or before now where `past`. now: Unix seconds."""
    if _DURATION.fullmatch(text):
        seconds = now + (-1 if past else 1) * duration_from(text, option).ToMicroseconds() / UNITS["s"]
    else:
        seconds = _seconds_of(text, option)
    if not _FIRST_SECOND <= seconds <= _LAST_SECOND:
        _refuse(option, f"{text!r} lies outside of the years 1 to 9999")
    time = Timestamp()
    time.FromMicroseconds(round(seconds * UNITS["s"]))
    return time


def _seconds_of(text: str, option: str) -> float:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        expected = "a time with its zone, such as 2027-01-31T12:00:00Z, or one from now, such as 90d"
        _refuse(option, f"{text!r} is not {expected}")
    return time.timestamp()


def limit_from(text: str, option: str) -> key_pb2.Limit:
    """A rate limit `NAME=100/60s` or `NAME=100/60s:200`, or a quota `NAME=1000/day`."""
    name, equals, rest = text.partition("=")
    match = _RATE.fullmatch(rest)
    if not name or not equals or match is None:
        _refuse(option, f"{text!r} is not NAME=100/60s, NAME=100/60s:BURST or NAME=1000/day|month|lifetime")
    limit, period, burst = int(match[1]), match[2], int(match[3] or 0)
    if period not in PERIODS:
        rate = key_pb2.RateLimit(limit=limit, period=duration_from(period, option), burst=burst)
        return key_pb2.Limit(name=name, rate_limit=rate)
    if match[3]:
        _refuse(option, f"{text!r}: a quota has no burst")
    return key_pb2.Limit(name=name, quota=key_pb2.Quota(limit=limit, period=PERIODS[period]))


def limits_from(texts: Iterable[str], option: str) -> list[key_pb2.Limit]:
    """Limits, as many as were given."""
    return [limit_from(text, option) for text in texts]


def tags_from(texts: Iterable[str], option: str = "--tag") -> dict[str, str]:
    """Tags `NAME=VALUE`, each name once."""
    tags: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            _refuse(option, f"{text!r} is not NAME=VALUE")
        if name in tags:
            _refuse(option, f"{name!r} is there twice")
        tags[name] = value
    return tags


def claims_from(text: str, option: str = "--claims") -> Struct:
    """A JSON object."""
    claims = Struct()
    try:
        value = json.loads(text, parse_constant=_no_number, parse_int=_exact)
        if not isinstance(value, dict):
            _refuse(option, 'a JSON object such as {"region": "eu"} is expected')
        claims.update(value)
    except (ValueError, RecursionError) as error:
        _refuse(option, f"no JSON: {error}")
    return claims


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number in JSON")


def _exact(text: str) -> int:
    if abs(number := int(text)) > _LARGEST_EXACT:
        raise ValueError(f"{text} cannot be kept exactly; write it as a string")
    return number


def _refuse(option: str, message: str) -> NoReturn:
    raise typer.BadParameter(message, param_hint=option)
