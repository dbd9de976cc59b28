"""What a run of the torture test found."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc

from tests.consistency.torture.judge import Judge

TOLERANCE_SECONDS = 1.0
"""What a revocation may take beyond what the protocol says: the machine runs everything at once, and is saturated."""

_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


@dataclass(slots=True)
class Report:
    """Grows while the test runs.

    seconds: how long it ran. changes, faults: how many of each kind. calm, troubled: how long revocations took, without
    a fault and during one. longest_wait: the longest that one waited for replicas while its own was well.
    longest_recovery: how long after the last of several faults all was well again. complaints: what went wrong, beside
    decisions.
    """

    longest_lease: float
    seconds: float = 0.0
    judge: Judge = field(default_factory=Judge)
    changes: Counter[str] = field(default_factory=Counter)
    failed_calls: Counter[int] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    calm: list[float] = field(default_factory=list)
    troubled: list[float] = field(default_factory=list)
    longest_wait: float = 0.0
    longest_recovery: float = 0.0
    complaints: list[str] = field(default_factory=list)

    @property
    def bound(self) -> float:
        """How long a mutation may wait for replicas at most, in seconds: the longest lease and its margin."""
        return self.longest_lease * 1.1

    @property
    def failed(self) -> bool:
        """Whether anything went wrong."""
        return bool(self.judge.wrong or self.complaints)

    @property
    def revocations(self) -> int:
        """How many calls that switch keys off returned OK."""
        return len(self.calm) + len(self.troubled)

    def progress(self) -> str:
        """One line, for who waits."""
        return (
            f"{self.judge.judged:>12,} decisions {self.revocations:>7,} revocations {self.faults.total():>5} faults"
            f" {self.judge.wrong:>4} violations"
        )

    def table(self) -> str:
        """All of it, aligned."""
        judge = self.judge
        rows: list[tuple[str, str]] = [
            ("decisions judged", f"{judge.judged:,}"),
            ("  ALLOW", f"{judge.allowed:,}"),
            ("  DENY", f"{judge.denied:,}"),
            ("  from caches of clients", f"{judge.cached:,}"),
            ("  with one right answer only", f"{judge.decisive:,}"),
            ("  per second", f"{judge.judged / self.seconds:,.0f}"),
            ("calls that ended in an error", f"{judge.errors.total():,}"),
            *_indented({_CODES[code]: count for code, count in judge.errors.items()}),
            ("changes", f"{self.changes.total():,}"),
            *_indented(self.changes),
            ("changes that ended in an error", f"{self.failed_calls.total():,}"),
            *_indented({_CODES[code]: count for code, count in self.failed_calls.items()}),
            ("faults injected", f"{self.faults.total():,}"),
            *_indented(self.faults),
            ("revocations without a fault", _latencies(self.calm)),
            ("revocations during one", _latencies(self.troubled)),
            ("longest wait for replicas", f"{self.longest_wait:.3f} s, of {self.bound:.1f} s"),
            ("longest recovery", f"{self.longest_recovery:.1f} s"),
            ("violations", f"{judge.wrong:,}"),
            ("other failures", f"{len(self.complaints):,}"),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _indented(counts: dict[str, int] | Counter[str]) -> list[tuple[str, str]]:
    return [(f"  {name}", f"{count:,}") for name, count in sorted(counts.items())]


def _latencies(seconds: Sequence[float]) -> str:
    if len(seconds) < 2:
        return f"{len(seconds):,}"
    p99 = statistics.quantiles(seconds, n=100, method="inclusive")[98]
    return (
        f"{len(seconds):,}: median {statistics.median(seconds) * 1_000:.1f} ms, p99 {p99 * 1_000:.1f} ms,"
        f" longest {max(seconds) * 1_000:.0f} ms"
    )
