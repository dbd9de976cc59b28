"""How `latchgate top` looks on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from latchgate_server.cli.text import NOTHING, printable
from latchgate_server.cli.top_frame import Frame, Replica

_WIDE = 100
_REASONS = 6


class View:
    """The latest frame, laid out for the width there is: two columns, or one below the other."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        frame = self.frame
        yield _headline(frame)
        yield Text("")
        blocks: list[RenderableType] = [
            _latency(frame),
            _denials(frame),
            _changes(frame),
            _cache(frame),
            _resources(frame),
        ]
        if options.max_width >= _WIDE:
            grid = Table.grid(padding=(0, 4, 0, 0), expand=True)
            grid.add_column(ratio=1)
            grid.add_column(ratio=1)
            grid.add_row(_stacked(blocks[0], blocks[2]), _stacked(blocks[1], blocks[3], blocks[4]))
            yield grid
        else:
            yield _stacked(*blocks)
        yield _replicas(frame)
        yield Text("")
        yield _hottest(frame)


def _stacked(*blocks: RenderableType) -> Group:
    return Group(*(part for block in blocks for part in (block, Text(""))))


def _headline(frame: Frame) -> Text:
    line = Text()
    total = frame.allowed_per_second + frame.denied_per_second
    line.append(f"{rate(total)} decisions/s", style="bold")
    line.append(f"   allowed {rate(frame.allowed_per_second)}", style="green")
    for name, value in (("denied", frame.denied_per_second), ("undecided", frame.undecided_per_second)):
        line.append(f"   {name} {rate(value)}", style="red" if value else "dim")
    if frame.stale_per_second:
        line.append(f"   on old state {rate(frame.stale_per_second)}", style="red")
    return line


def _table(title: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_header=bool(columns))
    table.add_column(title if columns else "", no_wrap=True, header_style="bold")
    for column in columns or ("",):
        table.add_column(column, justify="right" if columns else "left", no_wrap=True)
    return table


def _facts(title: str, rows: Sequence[tuple[str, str]]) -> Group:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))
    return Group(Text(title, style="bold"), table)


def _latency(frame: Frame) -> Table:
    table = _table("LATENCY", "calls/s", "half within", "99% within")
    for row in frame.latency:
        table.add_row(row.method, rate(row.calls_per_second), seconds(row.p50_seconds), seconds(row.p99_seconds))
    return table


def _denials(frame: Frame) -> Table:
    table = _table("DENIALS", "per second")
    for reason, each in list(frame.denials_per_second.items())[:_REASONS]:
        table.add_row(Text(printable(reason)), rate(each))
    if len(frame.denials_per_second) > _REASONS:
        table.add_row("others", rate(sum(list(frame.denials_per_second.values())[_REASONS:])))
    if not frame.denials_per_second:
        table.add_row("none", "")
    return table


def _changes(frame: Frame) -> Group:
    changes = frame.changes
    slowest = "none yet" if changes.slowest_seconds is None else _at_most(changes.slowest_seconds)
    return _facts(
        "CHANGES",
        [
            ("calls", f"{rate(changes.calls_per_second)}/s, {rate(changes.failed_per_second)}/s refused or failed"),
            ("reach every replica", f"half within {seconds(changes.p50_seconds)}, 99% {seconds(changes.p99_seconds)}"),
            ("slowest so far", slowest),
            ("leases waited out", str(changes.leases_expired)),
        ],
    )


def _at_most(bound: float) -> str:
    return "more than all bounds" if bound == float("inf") else f"at most {seconds(bound)}"


def _cache(frame: Frame) -> Group:
    cache = frame.cache
    evicted = ", ".join(f"{cause} {rate(each)}" for cause, each in cache.evictions_per_second.items()) or "none"
    hits = NOTHING if cache.hit_share is None else f"{cache.hit_share:.1%} of lookups"
    return _facts(
        "MEMORY",
        [
            ("records", f"{cache.records:,} of {cache.capacity:,}"),
            ("hits", f"{hits}, misses {rate(cache.misses_per_second)}/s"),
            ("evictions/s", evicted),
            ("reading records", f"99% within {seconds(cache.load_p99_seconds)}"),
        ],
    )


def _resources(frame: Frame) -> Group:
    resources = frame.resources
    pools = ", ".join(f"{printable(pool)} {busy}/{most}" for pool, (busy, most) in resources.connections.items())
    hashing = f"{resources.hashes_waiting} waiting, 99% within {seconds(resources.hash_p99_seconds)}"
    store = "up" if resources.limit_store_up else "LOST"
    if resources.limit_store_p99_seconds is not None:
        store += f", 99% within {seconds(resources.limit_store_p99_seconds)}"
    return _facts("RESOURCES", [("connections busy", pools or NOTHING), ("argon2", hashing), ("limit store", store)])


def _replicas(frame: Frame) -> Group:
    columns = ("lease", "beat", "revision", "dec./s", "records", "usage lag")
    table = _table("REPLICAS", *columns)
    lost = Text()
    for replica in frame.replicas:
        if replica.problem:
            lost.append(f"{replica.address}  {printable(replica.problem)}\n", style="red")
        else:
            table.add_row(Text(replica.address), *_replica(replica))
    lost.append(f"processes on this database: {frame.replicas_known}", style="dim")
    return Group(table, lost)


def _replica(replica: Replica) -> list[Text]:
    return [
        Text("valid", style="green") if replica.lease_valid else Text("NONE", style="bold red"),
        Text(seconds(replica.beat_age_seconds)),
        Text(str(replica.applied_revision)),
        Text(rate(replica.decisions_per_second)),
        Text(f"{replica.cached_records:,}"),
        Text(seconds(replica.usage_lag_seconds), style="red" if replica.usage_lag_seconds > 10 else ""),
    ]


def _hottest(frame: Frame) -> Group:
    hottest = frame.hottest
    table = _table("HOTTEST KEYS", "tenant", "per second", "this hour")
    for key in hottest.keys:
        per_second = NOTHING if key.per_second is None else rate(key.per_second)
        table.add_row(Text(printable(key.key_id)), Text(printable(key.tenant_id)), per_second, f"{key.this_hour:,}")
    return Group(table, Text(printable(hottest.remark), style="dim"))


def rate(value: float) -> str:
    """A rate, with as many digits as say something."""
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}" if value >= 0.1 else f"{value:.2f}"


def seconds(value: float | None) -> str:
    """A time, in the unit that suits it."""
    if value is None:
        return NOTHING
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.0f} µs" if value else "0 s"
