"""Row flood: somebody tries random credentials at full speed, while another verifies hot keys."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence

from benchmarks.house import Bench, sample
from benchmarks.load import Load, Shape, framed
from benchmarks.measure import VERIFY_PATH, WrongAnswers
from benchmarks.report import Figure
from latchgate_server.hashing import Peppers, SecretHasher
from latchgate_server.system import SystemEntropy
from tests.support.server import ServerProcess

_SHAPE = Shape(processes=2, streams=16)
_CREDENTIALS = 2_000


def run(bench: Bench, _wanted: Collection[str]) -> Sequence[Figure]:
    """The hot rate against that of one of two equal clients, in turn; and what was read meanwhile."""
    strangers = SecretHasher(Peppers([bytes(32)]), bytes(32), SystemEntropy())
    made = [strangers.make_credential("lg").key_string for _ in range(_CREDENTIALS)]
    strangers.close()
    bodies = [framed(bench.ask(key_string)) for key_string in made]
    equal, flooded = [], []
    with bench.warm_server("native") as server:
        sample(server, bench.ask(made[0]))  # the first stranger has the filter of imported keys read, once
        reads = 0
        for number in range(bench.options.rounds):
            bench.progress(f"flood, {number + 1} of {bench.options.rounds}")
            equal.append(_rate_beside(bench, server, bench.hot_bodies))
            before = _rows_read(server)
            flooded.append(_rate_beside(bench, server, bodies))
            reads += _rows_read(server) - before
    beside_equal, beside_flood = statistics.median(equal), statistics.median(flooded)
    ratio = beside_flood / beside_equal
    beside = f"{beside_equal:,.0f} calls a second beside an equal client, {beside_flood:,.0f} beside the flood"
    return [
        Figure("flood", "hot rate in that beside an equal client", ratio, "", "at least 0.5", ratio >= 0.5, beside),
        Figure("flood", "reads of keys from the database", reads, "", "0", reads == 0),
    ]


def _rate_beside(bench: Bench, server: ServerProcess, bodies: Sequence[bytes]) -> float:
    """The rate of hot calls while another client sends `bodies`."""
    seconds = bench.options.seconds
    with (
        Load(server.verify_address, VERIFY_PATH, bodies, seconds, _SHAPE) as other,
        Load(server.verify_address, VERIFY_PATH, bench.hot_bodies, seconds, _SHAPE) as hot,
    ):
        outcome = hot.outcome()
        if not other.outcome().done:
            raise WrongAnswers("the other client was not answered")
        return outcome.rate


def _rows_read(server: ServerProcess) -> int:
    """How often the server has read records, by its own count: PostgreSQL's would have those that usage looks up."""
    return int(server.metrics()["latchgate_record_reads_total"])
