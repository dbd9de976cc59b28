"""Row limits: what a rate limit, a quota and the account of uses cost, in Verify's rate without all of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack

from benchmarks.hot import verify_subject
from benchmarks.house import RATE, Bench
from benchmarks.load import framed
from benchmarks.measure import in_turn
from benchmarks.report import Figure
from latchgate.v1 import key_pb2

_REACH = 0.85
_QUOTA = key_pb2.Limit(
    name="prepaid", quota=key_pb2.Quota(limit=1_000_000_000_000, period=key_pb2.Quota.PERIOD_LIFETIME)
)
_PLAIN, _LIMITED, _BOTH = "no limits, no uses", "a rate limit and uses", "a rate limit, a quota and uses"


def run(bench: Bench, _wanted: Collection[str]) -> Sequence[Figure]:
    """As many keys of each kind, each on a server of its own, in turn."""
    kinds = [
        (_PLAIN, "benchmarks.forgetful", bench.keys_like(limits=[])),
        (_LIMITED, "latchgate_server", bench.hot),
        (_BOTH, "latchgate_server", bench.keys_like(limits=[RATE, _QUOTA])),
    ]
    with ExitStack() as stack:
        subjects = []
        for name, module, keys in kinds:
            server = stack.enter_context(bench.server("native", module=module))
            bench.warm(server, keys)
            bodies = [framed(bench.ask(credential.key_string)) for credential in keys]
            subjects.append(verify_subject(server, name, bodies))
        costs = in_turn(subjects, bench.options.rounds, bench.options.seconds, bench.progress)
    plain, figures = costs[_PLAIN], []
    for name in (_LIMITED, _BOTH):
        cost = costs[name]
        ratio = plain.cpu / cost.cpu
        what = f"Verify with {name}, rate in that without"
        beside = (
            f"{cost.microseconds:.1f} and {plain.microseconds:.1f} µs CPU a call; {cost.rate:,.0f} calls a second here"
        )
        figures.append(Figure("limits", what, ratio, "", "at least 0.85", ratio >= _REACH, beside))
    return figures
