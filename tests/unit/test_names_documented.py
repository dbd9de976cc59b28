"""docs/reference tells every metric with its kind and labels, and nothing that does not exist."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prometheus_client import Gauge
from prometheus_client.metrics import MetricWrapperBase

from latchgate_server import observability

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
