"""A short run of the torture test, and its judge put to the test: would it find a wrong decision?"""

from __future__ import annotations

import asyncio

import pytest

from tests.consistency.torture.judge import ALLOW, ERROR, Decision, Judge, Phase, Switch
from tests.consistency.torture.run import Options, torture
from tests.support.postgres import Postgres
from tests.support.server import make_root_key

DENY = 7
UNAVAILABLE = ERROR + 14


def test_no_key_is_allowed_once_its_revocation_has_returned(postgres: Postgres) -> None:
    """`make torture` runs for longer, with every fault there is."""
    database_url = postgres.new_database()
    faults = "replica paused,worker killed,feeds terminated,connections stalled,lock held,client paused,client cut off"
    options = Options(seconds=9, in_flight=4, caching_clients=2, plots=3, faults=faults)
    report = asyncio.run(torture(options, database_url, make_root_key(database_url)))
    assert not report.failed, "\n".join((*report.judge.violations, *report.complaints))
    assert report.judge.decisive > 1_000
    assert report.judge.cached > 500
    assert report.revocations
    assert report.faults


def judged(decision: Decision) -> int:
    """How many wrong decisions the judge counts where there is this one.

    The key works from 0 on; its revocation is called at 10 and returns at 20, its restoration is called at 30 and
    returns at 40.
    """
    own = Switch("own", 0)
    own.begin(10, Phase.OFF)
    own.end(20, Phase.OFF)
    own.begin(30, Phase.ON)
    own.end(40, Phase.ON)
    judge = Judge()
    judge.add_key(1, "key", [Switch("tenant", 0), own])
    judge.judge(decision)
    return judge.wrong


@pytest.mark.parametrize(
    ("start", "end", "outcome"),
    [
        pytest.param(20.1, 29.9, ALLOW, id="allowed after the revocation has returned"),
        pytest.param(1, 2, DENY, id="denied before anybody revoked it"),
        pytest.param(40.1, 50, DENY, id="denied after the restoration has returned"),
    ],
)
def test_the_judge_finds_what_is_wrong(start: float, end: float, outcome: int) -> None:
    assert judged(Decision(key=1, replica=0, start=start, end=end, outcome=outcome)) == 1


@pytest.mark.parametrize(
    ("start", "end"),
    [
        pytest.param(9, 11, id="begun before the revocation was called"),
        pytest.param(19.9, 25, id="begun before the revocation has returned"),
        pytest.param(25, 30.1, id="ended after the restoration was called"),
        pytest.param(5, 50, id="longer than both"),
    ],
)
@pytest.mark.parametrize("outcome", [ALLOW, DENY])
def test_what_overlaps_a_call_may_go_either_way(start: float, end: float, outcome: int) -> None:
    assert judged(Decision(key=1, replica=0, start=start, end=end, outcome=outcome)) == 0


def test_an_error_is_no_decision() -> None:
    assert judged(Decision(key=1, replica=0, start=25, end=26, outcome=UNAVAILABLE)) == 0


def test_nothing_is_known_after_a_call_that_failed_until_another_has_returned() -> None:
    own = Switch("own", 0)
    own.begin(10, Phase.ON)
    assert own.during(11, 12) is Phase.ON, "it was on already"
    own.begin(20, Phase.OFF)
    assert own.during(21, 1_000) is Phase.UNSURE
    own.end(30, Phase.OFF)
    assert own.during(31, 1_000) is Phase.OFF
