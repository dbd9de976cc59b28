"""Processes on one database: how they begin and end, how they are replaced, and what several workers have in common."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from latchgate.v1.decision_pb2 import DECISION_ALLOW
from tests.consistency.replicas import (
    LEASE_AND_MARGIN,
    TOLERANCE,
    NewKey,
    Replica,
    make_key,
    processes,
    revoke,
    serving,
)
from tests.support.server import environment, is_alive, run_command
from tests.support.waiting import wait_until


def test_a_process_that_ends_takes_its_row_along(steady: Replica, module_database: str, root_key: str) -> None:
    before = processes(module_database)
    with serving(module_database, root_key) as replica:
        [itself] = processes(module_database) - before
        replica.process.signal(signal.SIGTERM)
        assert replica.process.stop() == 0
        assert itself not in processes(module_database)
    propagation, took = revoke(steady, make_key(steady))
    assert propagation.leases_expired == 0
    assert took < LEASE_AND_MARGIN


def test_a_process_that_crashes_delays_one_mutation_by_a_lease(
    steady: Replica, module_database: str, root_key: str
) -> None:
    with serving(module_database, root_key) as replica:
        replica.process.kill()
    propagation, took = revoke(steady, make_key(steady))
    assert propagation.leases_expired <= 1  # the making of the key may have waited for it
    assert took < LEASE_AND_MARGIN + TOLERANCE
    propagation, took = revoke(steady, make_key(steady))
    assert propagation.leases_expired == 0
    assert took < LEASE_AND_MARGIN


@pytest.fixture(scope="module")
def crew(module_database: str, root_key: str) -> Iterator[Replica]:
    """Two workers on the same ports."""
    with serving(module_database, root_key, workers="2") as replica:
        yield replica


def allowed_by_workers(crew: Replica) -> float:
    return sum(
        value
        for name, value in crew.process.metrics().items()
        if name.startswith("latchgate_decisions_total") and 'decision="ALLOW"' in name
    )


def test_the_metrics_of_all_workers_are_shown_in_one_place(steady: Replica, crew: Replica) -> None:
    key = make_key(steady)
    before = allowed_by_workers(crew)
    for _ in range(30):
        assert crew.allows(key.key_string)
    # Workers hand on what they counted once a second.
    wait_until(lambda: allowed_by_workers(crew) >= before + 30)
    assert allowed_by_workers(crew) == before + 30
    wait_until(lambda: crew.process.metrics()["latchgate_lease_valid"] == 1)
    shown = crew.process.metrics()
    assert not any("pid=" in name for name in shown)
    assert shown["latchgate_cache_capacity"] == 2 * 200_000
    assert shown['latchgate_pool_capacity{pool="usage"}'] == 2
    assert shown["latchgate_applied_revision"] >= 1
    assert sum(value for name, value in shown.items() if name.startswith("latchgate_verify_seconds_count")) >= 30


def test_a_worker_that_crashes_is_replaced(steady: Replica, crew: Replica, module_database: str) -> None:
    key = make_key(steady)
    before = processes(module_database)
    first, second = crew.process.worker_pids
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: len(processes(module_database) - before) == 1)
    revoke(steady, make_key(steady))
    assert len(processes(module_database)) == len(before), "one came, and the one that crashed is forgotten"
    assert set(crew.process.worker_pids) - {first} > {second}
    # With the one that was there before stopped, whoever answers is the new one.
    os.kill(second, signal.SIGSTOP)
    try:
        wait_until(lambda: answers_quickly(crew, key))
    finally:
        os.kill(second, signal.SIGCONT)
    # It may have to renew its lease first, and until then decides nothing.
    wait_until(lambda: all(answers_quickly(crew, key) for _ in range(10)))


def answers_quickly(replica: Replica, key: NewKey) -> bool:
    """Whether it says ALLOW, asked once by a connection that the system may give to a worker that is stopped."""
    try:
        return replica.verify(key.key_string, timeout=0.5).decision == DECISION_ALLOW
    except grpc.RpcError:
        return False


def test_a_supervisor_that_is_told_to_end_ends_its_workers_first(
    crew: Replica, steady: Replica, module_database: str
) -> None:
    before, workers = processes(module_database), crew.process.worker_pids
    crew.process.signal(signal.SIGTERM)
    assert crew.process.stop() == 0
    assert not any(map(is_alive, workers))
    assert len(before - processes(module_database)) == 2


def test_workers_end_when_their_supervisor_is_killed(module_database: str, root_key: str) -> None:
    before = processes(module_database)
    with serving(module_database, root_key, workers="2") as replica:
        workers = replica.process.worker_pids
        crew_of_two = processes(module_database) - before
        assert len(crew_of_two) == 2
        replica.process.signal(signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, workers)))
    assert not crew_of_two & processes(module_database), "they ended in good order"


def test_several_workers_on_a_unix_socket_are_refused_in_one_line(module_database: str, tmp_path: Path) -> None:
    settings = environment(module_database, workers="2", verify_listen=f"unix:{tmp_path}/verify.sock")
    refused = run_command("serve", env=settings)
    assert refused.returncode == 1
    [line] = refused.stderr.splitlines()
    assert "Unix socket" in line
    assert "LATCHGATE_WORKERS=1" in line
