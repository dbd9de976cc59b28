"""Commands that tell what keys are used for: counts, single uses, addresses, and how a rotation gets on."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from typing import Annotated

import typer
from google.protobuf.duration_pb2 import Duration
from rich.live import Live

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import audit_pb2, decision_pb2, key_pb2
from latchgate_server.cli import options, text
from latchgate_server.cli.charts import Bar, print_chart
from latchgate_server.cli.failures import USAGE, fail
from latchgate_server.cli.key_states import KeyId
from latchgate_server.cli.output import (
    Column,
    Format,
    Output,
    Rows,
    console,
    details_table,
    print_json,
    print_list,
    print_one,
    print_page,
    remark,
)
from latchgate_server.cli.parsing import time_from
from latchgate_server.cli.remote import Admin, administration
from latchgate_server.system import SystemClock

_WATCH_SECONDS = 2.0
_USES = [
    Column("time", whole=True),
    Column("decision", whole=True),
    Column("address"),
    Column("user"),
    Column("request"),
    Column("user agent"),
]
_SOURCES = [
    Column("address", whole=True),
    Column("uses", whole=True),
    Column("first use", whole=True),
    Column("last use", whole=True),
]
_BUSIEST = [
    Column("key id", whole=True),
    Column("tenant"),
    Column("name"),
    Column("this hour", whole=True),
    Column("hour before", whole=True),
]


class Interval(StrEnum):
    """What decisions are counted by."""

    HOUR = "hour"
    DAY = "day"


_SECONDS = {Interval.HOUR: 3_600, Interval.DAY: 86_400}
_SINCE = {Interval.HOUR: "24h", Interval.DAY: "30d"}
_SHOWN = {Interval.HOUR: "%Y-%m-%d %H:%M", Interval.DAY: "%Y-%m-%d"}

By = Annotated[Interval, typer.Option("--by", metavar="hour|day", help="What to count by.")]
Since = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="From when on: 7d is seven days ago. 24h; by day 30d.")
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Until when; without: now.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the group `keys`."""
    for command in (usage, uses, sources, busiest, rotation):
        app.command()(command)


def usage(
    key_id: KeyId,
    *,
    by: By = Interval.HOUR,
    since: Since = None,
    until: Until = None,
    output: Output = Format.TABLE,
) -> None:
    """Show how often a key was allowed and denied, in a chart."""
    show_usage(pb.GetUsageRequest(key_id=key_id), by, since, until, output)


def show_usage(request: pb.GetUsageRequest, by: Interval, since: str | None, until: str | None, output: Format) -> None:
    """Print the usage of the request's key or tenant."""
    now = SystemClock().now()
    request.bucket_length.CopyFrom(Duration(seconds=_SECONDS[by]))
    request.start_time.CopyFrom(time_from(since or _SINCE[by], "--since", now, past=True))
    if until:
        request.end_time.CopyFrom(time_from(until, "--until", now, past=True))
    with administration() as admin:
        response = admin.read(admin.stub.GetUsage, request)
    if output is Format.JSON:
        print_json(response)
        return
    print_chart([_bar(bucket, by) for bucket in response.buckets])
    denied: dict[str, int] = {}
    for bucket in response.buckets:
        for reason, count in bucket.denied.items():
            denied[reason] = denied.get(reason, 0) + count
    allowed = sum(bucket.allowed for bucket in response.buckets)
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(denied.items(), key=lambda item: -item[1]))
    print(f"\nallowed {allowed}, denied {sum(denied.values())}{f': {reasons}' if reasons else ''}")


def _bar(bucket: audit_pb2.UsageBucket, by: Interval) -> Bar:
    return Bar(bucket.start_time.ToDatetime().strftime(_SHOWN[by]), bucket.allowed, sum(bucket.denied.values()))


def uses(key_id: KeyId, output: Output = Format.TABLE) -> None:
    """List the latest decisions about a key, newest first."""
    with administration() as admin:
        response = admin.read(admin.stub.ListKeyUses, pb.ListKeyUsesRequest(key_id=key_id))
    if output is Format.JSON:
        print_json(response)
    else:
        print_list(_USES, [_use(use) for use in response.uses])


def _use(use: audit_pb2.KeyUse) -> list[str]:
    allowed = use.decision == decision_pb2.DECISION_ALLOW
    return [
        text.moment(use.time),
        "allow" if allowed else text.reason(use.denial_reason),
        use.client_ip,
        use.user,
        f"{use.method} {use.host}{use.path}".strip(),
        use.user_agent,
    ]


def sources(
    key_id: KeyId, *, limit: options.Limit = None, page_token: options.PageToken = "", output: Output = Format.TABLE
) -> None:
    """List the addresses that a key was used from, the most recent first."""
    request = pb.ListKeySourcesRequest(key_id=key_id, page_token=page_token)
    with administration() as admin:
        response = admin.read_list(admin.stub.ListKeySources, request, lambda page: page.sources, limit)
    now = SystemClock().now()
    rows = [
        [
            source.client_ip,
            str(source.count),
            text.distance(source.first_use_time, now),
            text.distance(source.last_use_time, now),
        ]
        for source in response.sources
    ]
    print_page(output, response, _SOURCES, rows, response.next_page_token)


def busiest(
    *,
    tenant: Annotated[str, typer.Option("--tenant", metavar="TENANT", help="Of this tenant alone.")] = "",
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=100, help="At most so many.")] = 20,
    output: Output = Format.TABLE,
) -> None:
    """List the keys that are used most, in this hour and the one before it."""
    request = pb.ListBusiestKeysRequest(tenant_id=tenant, page_size=limit)
    with administration() as admin:
        response = admin.read(admin.stub.ListBusiestKeys, request)
    if output is Format.JSON:
        print_json(response)
    else:
        print_list(_BUSIEST, [_busy(key) for key in response.keys])


def _busy(key: audit_pb2.BusyKey) -> list[str]:
    return [key.key_id, key.tenant_id, key.display_name, f"{key.uses_this_hour:,}", f"{key.uses_hour_before:,}"]


def rotation(
    key_id: KeyId,
    *,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on until the old key can go unnoticed.", show_default=False)
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    """Show how far traffic has moved from a key to its successor, and whether the old key can go unnoticed."""
    request = pb.GetRotationRequest(key_id=key_id)
    with administration() as admin:
        if not watch:
            response = admin.read(admin.stub.GetRotation, request)
            print_one(output, response, _rotation(response))
        elif output is Format.JSON:
            fail("--watch shows tables; --output json tells how it stands now", USAGE)
        elif sys.stdout.isatty():
            _watch(admin, request)
        else:
            _follow(admin, request)


def _watch(admin: Admin, request: pb.GetRotationRequest) -> None:
    """Keep a table on the terminal true."""
    response = admin.read(admin.stub.GetRotation, request)
    with Live(details_table(_rotation(response)), console=console(sys.stdout), auto_refresh=False) as live:
        while not response.safe_to_revoke:
            time.sleep(_WATCH_SECONDS)
            response = admin.read(admin.stub.GetRotation, request)
            live.update(details_table(_rotation(response)), refresh=True)
    _tell_end(response)


def _follow(admin: Admin, request: pb.GetRotationRequest) -> None:
    """Print a line whenever something is new."""
    told = ""
    while True:
        response = admin.read(admin.stub.GetRotation, request)
        line = (
            f"uses within the last hour: old {response.predecessor_uses_hour}, new {response.successor_uses_hour}; "
            f"safe to revoke: {'yes' if response.safe_to_revoke else 'no'}"
        )
        if line != told:
            print(line, flush=True)
            told = line
        if response.safe_to_revoke:
            _tell_end(response)
            return
        time.sleep(_WATCH_SECONDS)


def _tell_end(response: pb.GetRotationResponse) -> None:
    if response.predecessor.state not in {key_pb2.Key.STATE_REVOKED, key_pb2.Key.STATE_UNSPECIFIED}:
        remark(f"latchgate keys revoke {response.predecessor.key_id}")


def _rotation(response: pb.GetRotationResponse) -> Rows:
    now = SystemClock().now()
    return [
        ("old key", _key(response.predecessor)),
        ("  last use", _last_use(response.predecessor, now)),
        (
            "  uses",
            f"{response.predecessor_uses_hour} within the last hour, {response.predecessor_uses_day} in a day",
        ),
        ("new key", _key(response.successor)),
        ("  last use", _last_use(response.successor, now)),
        ("  uses", f"{response.successor_uses_hour} within the last hour, {response.successor_uses_day} in a day"),
        ("safe to revoke", "yes" if response.safe_to_revoke else "no"),
        ("why", response.explanation),
    ]


def _key(key: key_pb2.Key) -> str:
    return f"{key.key_id} ({text.state(key)})" if key.key_id else "deleted"


def _last_use(key: key_pb2.Key, now: float) -> str:
    if not key.key_id:
        return ""
    return text.distance(key.last_use.time, now) if key.HasField("last_use") else "never"
