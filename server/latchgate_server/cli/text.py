"""How values read for people. What can be typed, such as limits and tags, reads as it is typed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToJson
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from latchgate.v1 import admin_service_pb2, decision_pb2, key_pb2

UNITS: Mapping[str, int] = {
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
"""Microseconds in each unit of a duration, shortest first."""

PERIODS: Mapping[str, key_pb2.Quota.Period.ValueType] = {
    "day": key_pb2.Quota.PERIOD_DAY,
    "month": key_pb2.Quota.PERIOD_MONTH,
    "lifetime": key_pb2.Quota.PERIOD_LIFETIME,
}
"""How the periods of quotas are typed."""

NOTHING = "-"
_WRITTEN = ("d", "h", "m", "s", "ms")


def printable(text: str) -> str:
    """The text on one line, without anything that a terminal would obey."""
    return "".join(symbol if symbol.isprintable() else ascii(symbol)[1:-1] for symbol in text)


def moment(time: Timestamp) -> str:
    """A point in time, in UTC and to the second: `2027-01-31T12:00:00Z`."""
    return Timestamp(seconds=time.seconds).ToJsonString()


def distance(time: Timestamp, now: float) -> str:
    """How far a point in time is from now, in its largest unit: `3d ago`, `in 87d`. now: Unix seconds."""
    micros = (time.seconds - int(now)) * UNITS["s"]
    unit = next((unit for unit in _WRITTEN if abs(micros) >= UNITS[unit]), "s")
    far = f"{round(abs(micros) / UNITS[unit])}{unit}"
    return f"in {far}" if micros > 0 else f"{far} ago"


def duration(value: Duration) -> str:
    """A duration in the largest unit that it is a multiple of: `1m`, `90s`, `1500ms`, `0.250ms`."""
    micros = value.ToMicroseconds()
    for unit in _WRITTEN:
        if micros and micros % UNITS[unit] == 0:
            return f"{micros // UNITS[unit]}{unit}"
    return f"{micros // UNITS['ms']}.{micros % UNITS['ms']:03}ms"


def limit(value: key_pb2.Limit) -> str:
    """A limit as it is typed: `calls=100/1m:200`, `prepaid=1000/month`."""
    if value.HasField("quota"):
        periods = {number: name for name, number in PERIODS.items()}
        return f"{value.name}={value.quota.limit}/{periods.get(value.quota.period, '?')}"
    rate = value.rate_limit
    burst = f":{rate.burst}" if rate.burst else ""
    return f"{value.name}={rate.limit}/{duration(rate.period)}{burst}"


def limits(values: Iterable[key_pb2.Limit]) -> str:
    """Limits in a row."""
    return ", ".join(map(limit, values))


def tags(values: Mapping[str, str]) -> str:
    """Tags in a row, by name."""
    return ", ".join(f"{name}={value}" for name, value in sorted(values.items()))


def claims(value: Struct) -> str:
    """Claims as JSON, as they are typed; nothing where there are none."""
    if not value.fields:
        return ""
    plain = json.loads(MessageToJson(value), parse_float=_number)
    return json.dumps(plain, ensure_ascii=False, sort_keys=True)


def _number(written: str) -> float:
    """A number as people write it: all are floating in a Struct, `5` would read `5.0`."""
    number = float(written)
    return int(number) if number.is_integer() else number


def state(key: key_pb2.Key) -> str:
    """The key's state, and whether it has expired: `active`, `expired`, `disabled, expired`, `revoked`."""
    name = key_pb2.Key.State.Name(key.state).removeprefix("STATE_").lower()
    if not key.expired or key.state == key_pb2.Key.STATE_REVOKED:
        return name
    return "expired" if key.state == key_pb2.Key.STATE_ACTIVE else f"{name}, expired"


def reason(value: decision_pb2.DenialReason.ValueType) -> str:
    """The name of a denial's reason; of one that this version does not know, its number."""
    try:
        return decision_pb2.DenialReason.Name(value).removeprefix("DENIAL_REASON_")
    except ValueError:
        return str(value)


def allowlist(value: key_pb2.IpAllowlist) -> str:
    """The addresses that a key may be used from: `10.0.0.0/8, 203.0.113.9`."""
    if not value.ranges:
        return "on, but empty: any address" if value.enabled else ""
    return ", ".join(value.ranges) + ("" if value.enabled else " (switched off)")


def travelled(propagation: admin_service_pb2.Propagation) -> str:
    """How far a mutation has travelled: `revision 17, confirmed by replicas: 2, waited 3ms`."""
    expired = f", leases expired: {propagation.leases_expired}" if propagation.leases_expired else ""
    waited = round(propagation.waited.ToMicroseconds() / UNITS["ms"])
    confirmed = f"confirmed by replicas: {propagation.replicas_confirmed}"
    return f"revision {propagation.revision}, {confirmed}{expired}, waited {waited}ms"
