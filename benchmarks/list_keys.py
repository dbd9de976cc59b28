"""`make bench-lists`: how long the database takes for a page of each list, by each filter, with a million keys.

Runs EXPLAIN (ANALYZE, BUFFERS) on the statements that the server itself sends, and prints which index each reads.
"""

# ruff: noqa: T201 - it reports to whoever ran it
from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks.machine import described
from benchmarks.many_keys import BUSY_HOUR, fill
from latchgate_server.core import bounds
from latchgate_server.core.model import KeyState
from latchgate_server.core.ports import AuditFilter, KeyFilter, ListPosition
from latchgate_server.embedded import running_postgres
from latchgate_server.storage import lists
from latchgate_server.storage.lists import Statement
from latchgate_server.storage.migrate import migrate
from latchgate_server.storage.pool import session_settings
from latchgate_server.storage.queries import SQL

_ROOT = Path(__file__).parent.parent
_LEASE = 3.0
_PAGE = 51
"""A page of 50, and one more that shows whether there is a next."""
_REACH_MS = 50.0
_LONGEST_MS = 10_000.0
_MIDDLE = datetime(2030, 1, 1, tzinfo=UTC)
_YEARS = timedelta(days=3_650)


@dataclass(frozen=True)
class Case:
    """A page. what: its filter, in words. pair: whether it is no single filter but several together."""

    what: str
    statement: Statement
    pair: bool = False


@dataclass
class Timing:
    """What was measured of a case: milliseconds in the database, of each run, what it read, and pages of 8 KiB read."""

    case: Case
    indexes: Sequence[str]
    scanned_tables: Sequence[str]
    rows: int
    pages: int
    milliseconds: list[float] = field(default_factory=list)

    @property
    def worst(self) -> float:
        """The slowest run."""
        return max(self.milliseconds)


def key_filters() -> Mapping[str, KeyFilter]:
    """Every filter of ListKeys alone: those that no, one, some, the oldest or most keys match."""
    late, early = _MIDDLE + _YEARS, _MIDDLE - _YEARS
    return {
        "no filter": KeyFilter(),
        "tenant: a third": KeyFilter(tenant_id="t0"),
        "tenant: small": KeyFilter(tenant_id="t9"),
        "tenant: none": KeyFilter(tenant_id="t-none"),
        "owner: a third": KeyFilter(owner="portal"),
        "owner: the oldest": KeyFilter(owner="legacy"),
        "owner: some": KeyFilter(owner="user-7"),
        "owner: one": KeyFilter(owner="rare"),
        "owner: none": KeyFilter(owner="nobody"),
        "role: most": KeyFilter(role_id="everyone"),
        "role: of each tenant": KeyFilter(role_id="reader"),
        "role: the oldest": KeyFilter(role_id="legacy"),
        "role: some": KeyFilter(role_id="shared-5"),
        "role: one": KeyFilter(role_id="rare"),
        "role: none": KeyFilter(role_id="nobody"),
        "environment: most": KeyFilter(environment="production"),
        "environment: the oldest": KeyFilter(environment="legacy"),
        "environment: one": KeyFilter(environment="rare"),
        "environment: none": KeyFilter(environment="nowhere"),
        "tag: all": KeyFilter(tags={"all": "yes"}),
        "tag: some": KeyFilter(tags={"team": "team-7"}),
        "tag: the oldest": KeyFilter(tags={"batch": "legacy"}),
        "tag: one": KeyFilter(tags={"batch": "rare"}),
        "tag: none": KeyFilter(tags={"batch": "none"}),
        "tags: all and some": KeyFilter(tags={"all": "yes", "team": "team-7"}),
        "tags: all and the oldest": KeyFilter(tags={"all": "yes", "batch": "legacy"}),
        "tags: two that never meet": KeyFilter(tags={"batch": "rare", "team": "team-7"}),
        "state: most": KeyFilter(states=(KeyState.ACTIVE,)),
        "state: the oldest fifth": KeyFilter(states=(KeyState.REVOKED,)),
        "state: the oldest few": KeyFilter(states=(KeyState.DISABLED,)),
        "states: two of three": KeyFilter(states=(KeyState.DISABLED, KeyState.REVOKED)),
        "expires_before: most": KeyFilter(expires_before=late),
        "expires_before: the oldest half": KeyFilter(expires_before=_MIDDLE),
        "expires_before: none": KeyFilter(expires_before=early),
        "rotation_due_before: half": KeyFilter(rotation_due_before=late),
        "rotation_due_before: the oldest": KeyFilter(rotation_due_before=_MIDDLE),
        "rotation_due_before: none": KeyFilter(rotation_due_before=early),
        "unused_since: most": KeyFilter(unused_since=_MIDDLE + 4 * _YEARS),
        "unused_since: the oldest and the unused": KeyFilter(unused_since=_MIDDLE + timedelta(days=365)),
        "unused_since: none": KeyFilter(unused_since=_MIDDLE - 5 * _YEARS),
        "search: many": KeyFilter(search="export"),
        "search: the oldest": KeyFilter(search="Legacy"),
        "search: one": KeyFilter(search="unicorn"),
        "search: one of many like it": KeyFilter(search="OPS-499996"),
        "search: none": KeyFilter(search="nothing"),
        "search: none, all its pieces common": KeyFilter(search="sync bot"),
        "search: a letter of most": KeyFilter(search="e"),
        "search: a letter of none": KeyFilter(search="\N{CYRILLIC SMALL LETTER ZHE}"),
        "search: two letters of none": KeyFilter(search="zq"),
        "search: a key id": KeyFilter(search="lg_c4ca4238a0b923820dcc"),
        "search: prefix of most": KeyFilter(search="lg_"),
        "search: prefix of the oldest": KeyFilter(search="old_"),
    }


def key_pairs() -> Mapping[str, KeyFilter]:
    """Filters together that have many keys each and few or none in common, or that are usual."""
    active = (KeyState.ACTIVE,)
    return {
        "owner and environment": KeyFilter(owner="portal", environment="production"),
        "owner and environment, never": KeyFilter(owner="portal", environment="legacy"),
        "owner and state, the oldest": KeyFilter(owner="portal", states=(KeyState.REVOKED,)),
        "environment and state, never": KeyFilter(environment="legacy", states=active),
        "role and owner, never": KeyFilter(role_id="legacy", owner="portal"),
        "tag and environment": KeyFilter(tags={"team": "team-7"}, environment="staging"),
        "tag and owner, never": KeyFilter(tags={"batch": "legacy"}, owner="portal"),
        "expires_before and state": KeyFilter(expires_before=_MIDDLE, states=active),
        "expires_before and state, never": KeyFilter(expires_before=_MIDDLE - _YEARS / 8, states=active),
        "expires_before and owner": KeyFilter(expires_before=_MIDDLE, owner="portal"),
        "unused_since and state": KeyFilter(unused_since=_MIDDLE + timedelta(days=730), states=active),
        "unused_since and owner": KeyFilter(unused_since=_MIDDLE + timedelta(days=730), owner="portal"),
        "search and unused_since": KeyFilter(search="export", unused_since=_MIDDLE + timedelta(days=730)),
        "search and state": KeyFilter(search="export", states=active),
        "search and expires_before": KeyFilter(search="export", expires_before=_MIDDLE),
        "all of them": KeyFilter(
            owner="portal",
            role_id="everyone",
            environment="production",
            tags={"team": "team-7"},
            states=active,
            expires_before=_MIDDLE,
            rotation_due_before=_MIDDLE,
            search="export",
        ),
    }


def key_cases(keys: int) -> Iterator[Case]:
    """ListKeys: each filter as administrators of `latchgate` ask it, and those of the largest and of a small tenant."""
    for what, matching in key_filters().items():
        yield Case(what, lists.list_keys(matching, None, _PAGE))
        if matching.tenant_id is None:
            for name, tenant_id in (("the largest tenant", "t0"), ("a small tenant", "t9")):
                yield Case(f"{what}; {name}", lists.list_keys(replace(matching, tenant_id=tenant_id), None, _PAGE))
    for what in ("no filter", "tenant: a third", "owner: a third", "tag: all", "role: most", "search: many"):
        deep = lists.list_keys(key_filters()[what], ListPosition(keys // 12), _PAGE)
        yield Case(f"{what}; a deep page", deep)
    for column in ("expires_before: most", "rotation_due_before: half"):
        deep = lists.list_keys(key_filters()[column], ListPosition(keys // 12, _MIDDLE - timedelta(days=290)), _PAGE)
        yield Case(f"{column}; a deep page", deep)
    for what, matching in key_pairs().items():
        yield Case(what, lists.list_keys(matching, None, _PAGE), pair=True)
        huge = replace(matching, tenant_id="t0")
        yield Case(f"{what}; the largest tenant", lists.list_keys(huge, None, _PAGE), pair=True)


def other_cases(keys: int) -> Iterator[Case]:
    """ListTenants, ListPlans, ListRoles, ListBusiestKeys and ListAuditEvents."""
    yield Case("tenants", Statement(SQL["list_tenants"], ["", _PAGE]))
    yield Case("tenants; a deep page", Statement(SQL["list_tenants"], ["t9", _PAGE]))
    yield Case("plans", Statement(SQL["list_plans"], ["", _PAGE]))
    yield Case("plans; of a tenant", Statement(SQL["plan_of_tenant"], ["t9"]))
    yield Case("roles", Statement(SQL["list_roles"], ["t0", "", _PAGE]))
    yield Case("roles; a deep page", Statement(SQL["list_roles"], ["t0", "shared-500", _PAGE]))
    most, among = bounds.BUSIEST_KEYS, bounds.BUSIEST_KEYS_LOOKED_AT
    yield Case("busiest keys", Statement(SQL["read_busiest_keys"], [BUSY_HOUR, most, among]))
    yield Case("busiest keys; an hour later", Statement(SQL["read_busiest_keys"], [BUSY_HOUR + 1, most, among]))
    tenants = {"the largest tenant, never used": "t0", "a large tenant": "t1", "a small tenant": "t9"}
    for what, tenant_id in tenants.items():
        of_tenant = Statement(SQL["read_busiest_keys_of_tenant"], [BUSY_HOUR, most, among, tenant_id])
        yield Case(f"busiest keys; {what}", of_tenant)
    start = datetime(2028, 1, 1, tzinfo=UTC)
    early, late = start + timedelta(seconds=keys // 50), start + timedelta(seconds=keys - keys // 50)
    filters = {
        "no filter": AuditFilter(),
        "tenant": AuditFilter(tenant_id="t0"),
        "target": AuditFilter(target_id="key-77"),
        "target: none": AuditFilter(target_id="key-none"),
        "actor: half": AuditFilter(actor="portal"),
        "actor: the oldest": AuditFilter(actor="legacy"),
        "start_time": AuditFilter(start_time=late),
        "end_time": AuditFilter(end_time=early),
        "tenant and end_time": AuditFilter(tenant_id="t0", end_time=early),
        "actor and both times": AuditFilter(actor="portal", start_time=early, end_time=late),
    }
    for what, matching in filters.items():
        yield Case(f"audit events, {what}", lists.list_audit_events(matching, None, _PAGE))
    deep = ListPosition(keys // 12, start + timedelta(seconds=keys // 12))
    yield Case("audit events; a deep page", lists.list_audit_events(AuditFilter(), deep, _PAGE))
    together = AuditFilter(tenant_id="t0", actor="legacy", target_id="key-none")
    yield Case("audit events, all of them", lists.list_audit_events(together, None, _PAGE), pair=True)


async def measured(connection: asyncpg.Connection, case: Case, runs: int) -> Timing:
    """Run the case so often, planned for its arguments as the server does. One that takes too long is ended, once."""
    try:
        return await _measured(connection, case, runs)
    except asyncpg.QueryCanceledError:
        return Timing(case, [f"ended after {_LONGEST_MS / 1_000:.0f} s"], [], 0, 0, [_LONGEST_MS])


async def _measured(connection: asyncpg.Connection, case: Case, runs: int) -> Timing:
    timing = None
    async with connection.transaction():
        await connection.execute(SQL["plan_for_arguments"])
        for _ in range(runs):
            text = "EXPLAIN (ANALYZE, BUFFERS, SETTINGS, FORMAT JSON) " + case.statement.text
            (told,) = json.loads(await connection.fetchval(text, *case.statement.arguments))
            plan = told["Plan"]
            if timing is None:
                nodes = list(_nodes(plan))
                indexes = sorted({node["Index Name"] for node in nodes if "Index Name" in node})
                tables = sorted({node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"})
                pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
                timing = Timing(case, indexes, tables, int(plan["Actual Rows"]), pages)
            timing.milliseconds.append(told["Planning Time"] + told["Execution Time"])
    assert timing is not None, "at least one run"
    return timing


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for below in plan.get("Plans", []):
        yield from _nodes(below)


async def open_connection(url: str) -> asyncpg.Connection:
    """A connection set up like the server's, but patient."""
    settings = session_settings(_LEASE) | {"statement_timeout": str(int(_LONGEST_MS))}
    connection: asyncpg.Connection = await asyncpg.connect(
        url, server_settings=settings, command_timeout=_LONGEST_MS / 500
    )
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
    return connection


async def _run(url: str, keys: int, runs: int, only: str) -> Sequence[Timing]:
    await migrate(url, _LEASE)
    await fill(url, keys, _told)
    connection = await open_connection(url)
    try:
        cases = [case for case in (*key_cases(keys), *other_cases(keys)) if only in case.what]
        _told(f"{len(cases)} pages, each {runs} times")
        return [await measured(connection, case, runs) for case in cases]
    finally:
        await connection.close()


def table(timings: Sequence[Timing]) -> str:
    """All timings, aligned."""
    lines = [("filter", "rows", "median ms", "max ms", "pages", "reads")]
    for timing in timings:
        reads = ", ".join([*timing.indexes, *(f"SCANS {name}" for name in timing.scanned_tables)])
        median = statistics.median(timing.milliseconds)
        lines.append(
            (timing.case.what, str(timing.rows), f"{median:.2f}", f"{timing.worst:.2f}", str(timing.pages), reads)
        )
    widths = [max(len(line[place]) for line in lines) for place in range(5)]
    return "\n".join(
        "  ".join(
            [
                line[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(line[1:5], widths[1:], strict=True)),
                line[5],
            ]
        )
        for line in lines
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 where a page by a single filter takes too long."""
    parser = argparse.ArgumentParser(prog="make bench-lists ARGS='…'", description=__doc__, allow_abbrev=False)
    parser.add_argument("--keys", type=int, default=1_000_000, help="in the database; default: %(default)s")
    parser.add_argument("--runs", type=int, default=5, help="of each page; default: %(default)s")
    parser.add_argument("--only", default="", help="pages whose filter has this in its name, such as 'busiest keys'")
    parser.add_argument("--output", type=Path, default=_ROOT / "benchmarks" / "results", help="folder of the JSON")
    given = parser.parse_args(arguments)
    if not any(given.only in case.what for case in (*key_cases(given.keys), *other_cases(given.keys))):
        parser.error(f"no filter has {given.only!r} in its name")
    machine = described(_ROOT)
    folder = Path(tempfile.mkdtemp(prefix="latchgate-"))
    try:
        _told("starting PostgreSQL")
        with running_postgres(folder / "postgres") as url:
            timings = asyncio.run(_run(url, given.keys, given.runs, given.only))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    path = _written(given.output, machine, given.keys, timings)
    slow = [timing for timing in timings if statistics.median(timing.milliseconds) > _REACH_MS]
    print(f"\n{table(timings)}\n")
    for timing in slow:
        print(f"over {_REACH_MS:.0f} ms{', several filters together' if timing.case.pair else ''}: {timing.case.what}")
    print(path)
    return int(any(not timing.case.pair for timing in slow))


def _written(folder: Path, machine: Mapping[str, object], keys: int, timings: Sequence[Timing]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lists.json"
    pages = [
        {
            "filter": timing.case.what,
            "several": timing.case.pair,
            **{name: value for name, value in asdict(timing).items() if name != "case"},
            "statement": timing.case.statement.text,
        }
        for timing in timings
    ]
    content = {"machine": machine, "keys": keys, "pages": pages}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _told(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
