"""The alert rules and the dashboard in deploy/: well-formed, and about metrics and labels that a server exports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from latchgate_server import observability

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus/latchgate.rules.yaml"
DASHBOARD = DEPLOY / "grafana/latchgate.json"
DURATION = re.compile(r"\d+[smhd]")
SEVERITIES = {"critical", "warning", "info"}


def exported() -> Mapping[str, frozenset[str]]:
    """Every name of a series, with its labels."""
    names: dict[str, frozenset[str]] = {}
    for metric in vars(observability).values():
        if not isinstance(metric, MetricWrapperBase):
            continue
        labels = frozenset(metric._labelnames)
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(str(metric._type), [""])
        for suffix in suffixes:
            names[metric._name + suffix] = labels | ({"le"} if suffix == "_bucket" else frozenset())
    return names


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    assert all(set(group) == {"name", "rules"} for group in groups)
    assert len({group["name"] for group in groups}) == len(groups)
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return found


def expressions() -> Iterator[tuple[str, str]]:
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_an_expression_is_about_what_a_server_exports(where: str, expression: str) -> None:
    names = exported()
    asked = set(re.findall(r"\blatchgate_\w+", expression))
    assert asked, where
    assert asked <= names.keys()
    known = {"instance", *(label for name in asked for label in names[name])}
    matched = re.findall(r"(\w+)\s*=~?\"", expression)
    grouped = [label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")]
    assert {*matched, *grouped} <= known
    for opening, closing in ("()", "[]", "{}"):
        assert expression.count(opening) == expression.count(closing)


def test_a_counter_is_never_looked_at_but_for_its_growth() -> None:
    for where, expression in expressions():
        for name in re.findall(r"\blatchgate_\w+_total", expression):
            assert re.search(rf"(rate|increase)\({name}", expression), where


def test_values_of_labels_that_are_asked_for_exist() -> None:
    values = {
        "what": {"counter", "batch", "use", "source", "description"},
        "decision": {"ALLOW", "DENY"},
        "cause": {"change", "size", "restart"},
        "method": set(observability.VERIFY_METHODS),
        "pool": {"control", "loads", "usage"},
        "state": {"busy", "idle"},
    }
    for where, expression in expressions():
        for label, pattern in re.findall(r"(\w+)(?:=~?|!=)\"([^\"$]+)\"", expression):
            assert set(pattern.split("|")) <= values[label], where


def test_rules_have_the_form_that_prometheus_reads() -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert DURATION.fullmatch(rule.get("for", "0s"))
        assert rule["labels"]["severity"] in SEVERITIES
        assert rule["annotations"].keys() == {"summary", "description"}
        told = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        grouped = re.findall(r"by \(([^)]*)\)", rule["expr"])
        assert told <= {label.strip() for group in grouped for label in group.split(",")}


def test_the_dashboard_shows_every_kind_of_metric_on_panels_that_do_not_overlap() -> None:
    shown = " ".join(expression for _, expression in expressions())
    missing = {name for name in exported() if not re.search(rf"\b{name}\b", shown)}
    assert {name for name in missing if not name.endswith(("_seconds_sum", "_seconds_count"))} <= {
        "latchgate_build",
        "latchgate_leases_expired_total",
        "latchgate_misconfigured_checks_total",
        "latchgate_record_reads_total",
        "latchgate_limit_store_losses_total",
        "latchgate_access_log_dropped_total",
    }
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels()]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in panels()}) == len(places)
