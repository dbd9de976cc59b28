"""What replicas' metrics endpoints show, and what has grown there between two looks."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

_SECONDS = 3.0
_LONGEST = 16 * 1024 * 1024
_AT_ONCE = 16

Labels = Mapping[str, str]
Series = tuple[str, tuple[tuple[str, str], ...]]
"""The name of a sample without `latchgate_`, and its labels, sorted."""

# Metrics are read on the machines and networks that they are served on, not through a proxy for the web.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class NoMetrics(Exception):
    """An endpoint shows no metrics of Latchgate; the message says why."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one endpoint showed. at: monotonic seconds. problem: why it showed nothing, or empty."""

    address: str
    at: float
    values: Mapping[Series, float] = field(default_factory=dict)
    problem: str = ""

    def each(self, name: str, **labels: str) -> Iterator[tuple[Labels, float]]:
        """The series of this name that have these labels, among others."""
        for (found, has), value in self.values.items():
            if found == name and labels.items() <= dict(has).items():
                yield dict(has), value

    def total(self, name: str, **labels: str) -> float:
        """Their sum."""
        return sum(value for _, value in self.each(name, **labels))


def read(text: str) -> Mapping[Series, float]:
    """The samples of ours in what an endpoint answered. Raises NoMetrics where there are none."""
    try:
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    except ValueError:
        raise NoMetrics("what answers there shows no metrics") from None
    values = {
        (sample.name.removeprefix("latchgate_"), tuple(sorted(sample.labels.items()))): sample.value
        for sample in samples
        if sample.name.startswith("latchgate_")
    }
    if not values:
        raise NoMetrics("what answers there shows no metrics of Latchgate")
    return values


def look(addresses: Sequence[str], monotonic: Callable[[], float]) -> list[Look]:
    """Look at all of them at once; what does not answer in a few seconds is told as a problem."""

    def one(address: str) -> Look:
        try:
            values = read(_fetched(address))
        except NoMetrics as problem:
            return Look(address, monotonic(), problem=str(problem))
        return Look(address, monotonic(), values)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(one, addresses))


def _fetched(address: str) -> str:
    try:
        with _opener.open(f"http://{address}/metrics", timeout=_SECONDS) as answer:
            body: bytes = answer.read(_LONGEST)
    except urllib.error.HTTPError as error:
        raise NoMetrics(f"what answers there shows no metrics, but status {error.code}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ConnectionRefusedError):
            raise NoMetrics("nothing answers there") from None
        if isinstance(reason, TimeoutError):
            raise NoMetrics(f"it did not answer within {_SECONDS:.0f}s") from None
        raise NoMetrics(str(reason) or type(reason).__name__) from None
    return body.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Growth:
    """How counters of all replicas grew between two looks. A process that started meanwhile counts from zero."""

    pairs: Sequence[tuple[Look, Look]]

    @classmethod
    def between(cls, before: Iterable[Look], now: Iterable[Look]) -> Growth:
        """Of those replicas that answered both times."""
        earlier = {look.address: look for look in before if not look.problem}
        return cls([(earlier[look.address], look) for look in now if not look.problem and look.address in earlier])

    def grown(self, name: str, by: str = "", **labels: str) -> dict[str, float]:
        """Growth by the value of the label `by`."""
        found: dict[str, float] = {}
        for before, now in self.pairs:
            for has, value in now.each(name, **labels):
                earlier = before.values.get((name, tuple(sorted(has.items()))), 0.0)
                grown = value - earlier if value >= earlier else value
                found[has.get(by, "")] = found.get(has.get(by, ""), 0.0) + grown
        return found

    def rates(self, name: str, by: str = "", **labels: str) -> dict[str, float]:
        """The same, a second."""
        rates: dict[str, float] = {}
        for before, now in self.pairs:
            seconds = max(now.at - before.at, 1e-9)
            for value, grown in Growth([(before, now)]).grown(name, by, **labels).items():
                rates[value] = rates.get(value, 0.0) + grown / seconds
        return rates

    def rate(self, name: str, **labels: str) -> float:
        """The sum of the rates."""
        return sum(self.rates(name, **labels).values())

    def quantile(self, share: float, name: str, **labels: str) -> float | None:
        """The time within which that share of all took place, in seconds; None where there were none."""
        return quantile(share, self.grown(f"{name}_bucket", "le", **labels))


def quantile(share: float, buckets: Mapping[str, float]) -> float | None:
    """Within a bucket, all is taken to be spread evenly, as Prometheus takes it.

    buckets: how many took no longer than each bound, cumulated.
    """
    bounds = sorted((float(bound), count) for bound, count in buckets.items())
    total = bounds[-1][1] if bounds else 0.0
    if total <= 0:
        return None
    wanted, lower, below = share * total, 0.0, 0.0
    for bound, count in bounds:
        if count >= wanted and count > below:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (wanted - below) / (count - below)
        lower, below = bound, count
    return lower


def longest(looks: Iterable[Look], name: str) -> float | None:
    """The bound of the last bucket that anything is in, since the processes started; infinite for the last of all."""
    buckets: dict[float, float] = {}
    for each in looks:
        for labels, count in each.each(f"{name}_bucket"):
            bound = float(labels["le"])
            buckets[bound] = buckets.get(bound, 0.0) + count
    found, below = None, 0.0
    for bound in sorted(buckets):
        if buckets[bound] > below:
            found, below = bound, buckets[bound]
    return found
