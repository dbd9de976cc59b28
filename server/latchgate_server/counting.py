"""Counts of the hot path: plain integers, which are handed on to the metrics when somebody looks.

A metric of the Prometheus client takes a lock for each observation, and writes to a shared file where several workers
serve: microseconds, where a decision takes a few of them. Here an observation is one addition by the event loop's
thread. What has come since is handed on before each scrape, and once a second where another process answers it.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric
from prometheus_client.registry import Collector


class SummedHistogram(Histogram):
    """A histogram that takes many observations at once."""

    def add(self, counts: Sequence[int], total: float) -> None:
        """Add observations. counts: for each bucket, the last without bound, those not in a smaller one."""
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(total)


class PlainCounter:
    """Counts on behalf of a counter. count: so far; whoever counts adds to it."""

    __slots__ = ("_counter", "_handed_on", "count")

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._handed_on = 0
        self.count = 0

    def hand_on(self) -> None:
        """Let the counter have what came since."""
        count = self.count
        if count != self._handed_on:
            self._counter.inc(count - self._handed_on)
            self._handed_on = count


class PlainHistogram:
    """Observes on behalf of a histogram."""

    __slots__ = ("_bounds", "_counts", "_handed_on", "_handed_on_total", "_histogram", "_total")

    def __init__(self, histogram: SummedHistogram, bounds: Sequence[float]) -> None:
        """bounds: those of the histogram's buckets, without the infinite one."""
        self._histogram = histogram
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0
        self._handed_on = list(self._counts)
        self._handed_on_total = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """Note a value that was met `count` times."""
        self._counts[bisect_left(self._bounds, value)] += count
        self._total += value * count

    def hand_on(self) -> None:
        """Let the histogram have what came since."""
        counts, total = list(self._counts), self._total
        if counts != self._handed_on:
            growth = [now - before for now, before in zip(counts, self._handed_on, strict=True)]
            self._histogram.add(growth, total - self._handed_on_total)
            self._handed_on, self._handed_on_total = counts, total


class HandsOn(Collector):
    """Has plain counts handed on before anything of the registry is read; register it first. It shows nothing."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._lock = threading.Lock()
        self._each: list[Callable[[], None]] = []
        registry.register(self)

    def also(self, *hand_on: Callable[[], None]) -> None:
        """Call these as well."""
        self._each.extend(hand_on)

    def hand_on(self) -> None:
        """Bring the metrics up to date. Any thread may call it."""
        with self._lock:
            for each in self._each:
                each()

    def describe(self) -> Iterator[Metric]:
        """Nothing, as the registry asks for."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Nothing, once the rest is up to date."""
        self.hand_on()
        return iter(())
