"""The rows of the table, and the file that measures each: a new one is a line here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from benchmarks import (
    batch,
    client_cache,
    coalesce,
    cold,
    envoy,
    flood,
    growth,
    hot,
    latency,
    limits,
    memory,
    overload,
    replicas,
    revoke,
    start,
    workers,
)
from benchmarks.house import Bench
from benchmarks.report import Figure

Measure = Callable[[Bench, Collection[str]], Sequence[Figure]]
"""Takes what it measures on, and which of its rows are wanted."""

ROWS: Mapping[str, Measure] = {
    "floor": hot.run,
    "verify": hot.run,
    "denied": hot.run,
    "transport": hot.run,
    "limits": limits.run,
    "batch": batch.run,
    "coalesce": coalesce.run,
    "cold": cold.run,
    "flood": flood.run,
    "memory": memory.run,
    "revoke": revoke.run,
    "replicas": replicas.run,
    "client": client_cache.run,
    "start": start.run,
    "workers": workers.run,
    "overload": overload.run,
    "envoy": envoy.run,
    "latency": latency.run,
    "growth": growth.run,
}
"""In the order of the table. Rows that one function measures are measured together."""
