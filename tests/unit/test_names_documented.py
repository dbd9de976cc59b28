"""docs/reference tells every metric, log event, field, span and attribute that there is, and none that is not."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from prometheus_client import Counter, Gauge
from prometheus_client.metrics import MetricWrapperBase

from latchgate_server import log_events, observability
from latchgate_server.core.model import DenialReason, Question
from latchgate_server.core.usage import Event
from latchgate_server.core.verification import Verification
from latchgate_server.spans import SpanName, TraceAttribute
from latchgate_server.verify import access_log

SERVER = Path(__file__).parents[2] / "server/latchgate_server"
STANDARD = {"event", "level", "timestamp", "logger", "exception"}
"""What a line has whatever its event is."""
EVENT, FIELD = 4, 2
"""How many cells the rows of either table in logs.md have."""
REFERENCE = Path(__file__).parents[2] / "docs/reference"


def rows(page: str) -> Iterator[list[str]]:
    """The cells of each row that begins with a name."""
    for line in (REFERENCE / page).read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| `"):
            yield cells


def names_in(cell: str) -> list[str]:
    return [part.strip("` ") for part in cell.split(",") if part.strip()]


def metrics() -> list[MetricWrapperBase]:
    """Those that observability.py declares; a child with values for its labels is none of its own."""
    found = [value for value in vars(observability).values() if isinstance(value, MetricWrapperBase)]
    return [metric for metric in found if not metric._labelvalues]


def test_every_metric_is_documented_once_with_its_kind_and_labels() -> None:
    documented = [(names_in(name)[0], kind, names_in(labels)) for name, kind, labels, _ in rows("metrics.md")]
    actual = [
        (metric._name + ("_total" if metric._type == "counter" else ""), metric._type, list(metric._labelnames))
        for metric in metrics()
    ]
    assert sorted(documented) == sorted(actual)


def test_what_is_exposed_is_what_is_declared() -> None:
    declared = {metric._name for metric in metrics()}
    assert {family.name for family in observability.REGISTRY.collect()} == declared


def test_a_gauge_says_what_several_workers_make_of_it() -> None:
    """Prometheus's default keeps the gauges of workers that are gone, each under its process id."""
    for metric in metrics():
        if isinstance(metric, Gauge):
            assert metric._multiprocess_mode.startswith("live"), metric._name
            assert metric._multiprocess_mode != "liveall", metric._name


@cache
def calls() -> Sequence[ast.Call]:
    """Every call in the server's code."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SERVER.rglob("*.py"))]
    return [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_counters_are_there_before_they_count() -> None:
    """An alert on growth cannot see the first event of a series that begins with it. Asks a process that has done
    nothing yet; of calls of AdminService nobody knows which will be made.
    """
    show = (
        "from prometheus_client import generate_latest as g; from latchgate_server.observability import REGISTRY as r"
    )
    run = [sys.executable, "-c", f"{show}; print(g(r).decode())"]
    shown = subprocess.run(run, capture_output=True, text=True, check=True, timeout=60).stdout
    counters = {name: metric for name, metric in vars(observability).items() if isinstance(metric, Counter)}
    for metric in counters.values():
        if metric._labelnames and metric is not observability.ADMIN_CALLS:
            assert f"\n{metric._name}_total{{" in shown, metric._name
    for call in calls():
        match call:
            case ast.Call(
                func=ast.Attribute(value=ast.Attribute(attr=name), attr="labels"), args=[ast.Constant(value=str(value))]
            ) if name in counters:
                metric = counters[name]
                assert f'\n{metric._name}_total{{{metric._labelnames[0]}="{value}"}} 0.0\n' in shown, (name, value)


class Logging(NamedTuple):
    """A call that logs an event: the names of its constants, where it is one of several, and its fields."""

    constants: frozenset[str]
    fields: frozenset[str]


def logging_calls() -> Iterator[Logging]:
    for call in calls():
        name = ast.unparse(call.func)
        if not call.args or not (name in {"log", "self._tell"} or name.startswith("_log.")):
            continue
        constants = re.findall(r"log_events\.(\w+)", ast.unparse(call.args[0]))
        if constants:
            fields = {keyword.arg for keyword in call.keywords if keyword.arg}
            yield Logging(frozenset(constants), frozenset(fields - {"exc_info"}))
        elif name.startswith("_log."):
            assert ast.unparse(call.args[0]) == "event", "an event's name is a constant"


def events() -> dict[str, str]:
    """Events by the names of their constants."""
    return {name: value for name, value in vars(log_events).items() if name.isupper() and isinstance(value, str)}


def documented_events() -> dict[str, set[str]]:
    """Events, with their fields."""
    return {row[0].strip("`"): set(names_in(row[2])) for row in rows("logs.md") if len(row) == EVENT}


def test_every_event_is_logged_and_documented() -> None:
    logged = frozenset[str]().union(*(call.constants for call in logging_calls()))
    assert logged | {"DECISION"} == events().keys(), "the access log writes its own lines"
    assert sorted(documented_events()) == sorted(events().values())


def test_every_event_is_documented_with_its_fields() -> None:
    documented = documented_events()
    told: dict[str, set[str]] = {event: set() for event in documented}
    for call in logging_calls():
        for constant in call.constants:
            told[events()[constant]] |= call.fields
    told["decision"] = set(json.loads(access_log._line(access_log_event()))) - STANDARD
    assert told == documented


def test_every_field_is_declared_and_documented() -> None:
    used = set[str]().union(*documented_events().values()) | {"request_id", "trace_id"}
    assert used == log_events.FIELDS
    documented = [row[0].strip("`") for row in rows("logs.md") if len(row) == FIELD]
    assert sorted(documented) == sorted(log_events.FIELDS | STANDARD)


def access_log_event() -> Event:
    question = Question("192.0.2.1", resource="orders/1", capability="exports", act_as="ada")
    return 0.0, Verification(DenialReason.INVALID_SECRET), question, None


def test_every_span_and_attribute_is_documented() -> None:
    documented = [row[0].strip("`") for row in rows("traces.md") if not row[0].startswith("`OTEL_")]
    names = [*(name.value for name in SpanName), *(name.value for name in TraceAttribute)]
    assert sorted(documented) == sorted(["SERVICE/METHOD", *names])


def test_every_span_and_attribute_is_made() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in SERVER.rglob("*.py"))
    for kind in (SpanName, TraceAttribute):
        for name in kind:
            assert f"{kind.__name__}.{name.name}" in code, name
