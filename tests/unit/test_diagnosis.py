"""What the doctor makes of what was measured, where a real deployment is hard to break that way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from latchgate_server.core.diagnosis import (
    CLOCK_WARNING,
    CLOCK_WRONG,
    DataFacts,
    Finding,
    Level,
    ServerFacts,
    Watched,
    judge_data,
    judge_replicas,
    judge_server,
)
from latchgate_server.core.replication import Replica

WELL = ServerFacts(
    version=18,
    is_standby=False,
    settings={
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "synchronous_standby_names": "",
        "idle_in_transaction_session_timeout": "2400",
    },
    own_commit="on",
    skew=0.0,
    uncertainty=0.01,
    connections=97,
    taken=3,
    standbys=0,
)
DATA = DataFacts(
    timeline_is_trusted=True, revision=9, peppers={"a": 3}, audit_peppers=["a"], administrators=1, disabled_triggers=[]
)


def amiss(findings: Iterable[Finding]) -> list[tuple[str, Level]]:
    told = list(findings)
    assert all(finding.advice for finding in told if finding.level is not Level.OK)
    return [(finding.check, finding.level) for finding in told if finding.level is not Level.OK]


def of_server(facts: ServerFacts, processes: int = 1) -> list[tuple[str, Level]]:
    return amiss(judge_server(facts, 3.0, processes, 16))


def test_what_is_well_is_well() -> None:
    assert of_server(WELL) == amiss(judge_data(DATA, ["a"])) == []


def test_a_standby_takes_no_changes() -> None:
    assert of_server(replace(WELL, is_standby=True)) == [("database", Level.WRONG)]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("skew", "level"),
    [(CLOCK_WARNING - 0.1, None), (CLOCK_WARNING + 0.1, Level.WARNING), (CLOCK_WRONG + 0.1, Level.WRONG)],
)
def test_clocks_that_are_apart_are_told_by_how_much_beyond_doubt(sign: int, skew: float, level: Level | None) -> None:
    expected = [("clock", level)] if level else []
    assert of_server(replace(WELL, skew=sign * skew)) == expected
    assert of_server(replace(WELL, skew=sign * skew, uncertainty=skew)) == []


def test_a_pooler_that_drops_our_settings_is_noticed() -> None:
    assert of_server(replace(WELL, own_commit="off")) == [("durability", Level.WRONG)]


def test_standbys_that_follow_asynchronously_are_a_warning_and_named_ones_none() -> None:
    assert of_server(replace(WELL, standbys=2)) == [("durability", Level.WARNING)]
    named = {**WELL.settings, "synchronous_standby_names": "one"}
    assert of_server(replace(WELL, standbys=2, settings=named)) == []


def test_the_connections_are_for_all_processes_beside_what_others_take() -> None:
    assert of_server(WELL, processes=5) == []
    assert of_server(WELL, processes=6) == [("connections", Level.WRONG)]
    assert of_server(replace(WELL, taken=20), processes=5) == [("connections", Level.WRONG)]


def test_a_pepper_that_the_audit_chain_alone_needs_is_a_warning() -> None:
    assert amiss(judge_data(replace(DATA, audit_peppers=["a", "b"]), ["a"])) == [("pepper", Level.WARNING)]
    assert amiss(judge_data(replace(DATA, peppers={"b": 1}, audit_peppers=["b"]), ["a"])) == [("pepper", Level.WRONG)]


def test_a_replica_that_stays_behind_is_wrong_and_one_that_is_silent_a_warning_while_others_serve() -> None:
    current, behind = Replica("one", 9, 3.0, 1), Replica("two", 8, 3.0, 1)
    assert amiss(judge_replicas([Watched(current, True), Watched(behind, True)], 9)) == [("replicas", Level.WRONG)]
    assert amiss(judge_replicas([Watched(current, True), Watched(behind, False)], 9)) == [("replicas", Level.WARNING)]
    assert amiss(judge_replicas([Watched(current, True)], 9)) == []
