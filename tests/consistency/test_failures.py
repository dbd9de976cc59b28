"""Several processes on one database, and how they live through its failures and those of the network.

`steady` reaches PostgreSQL directly, `exposed` through a proxy that fails on demand; keys are revoked at the first and
asked for at the second.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import grpc
import pytest

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1.decision_pb2 import DECISION_ALLOW, DECISION_DENY
from tests.conformance.wire import code_of, refusal, refusal_of
from tests.consistency.replicas import (
    LEASE,
    LEASE_AND_MARGIN,
    NOT_SERVING,
    SERVING,
    TOLERANCE,
    VERIFY_SERVICE,
    NewKey,
    Replica,
    fetch,
    make_key,
    psql,
    revoke,
    serving,
)
from tests.consistency.torture.cluster import OwnPostgres, own_postgres
from tests.consistency.torture.faults import PRUNE
from tests.support.fault_proxy import FaultProxy
from tests.support.server import environment, run_command
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def postgres() -> Iterator[OwnPostgres]:
    """A PostgreSQL of this file's own, as it is restarted."""
    folder = Path(tempfile.mkdtemp(prefix="latchgate-"))
    try:
        with own_postgres(folder) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def module_database(postgres: OwnPostgres) -> str:
    """Its one database, as an operator prepares it."""
    done = run_command("migrate", env=environment(postgres.url, lease="1s"))
    assert done.returncode == 0, done.stderr
    return postgres.url


@pytest.fixture(scope="module")
def proxy(module_database: str) -> Iterator[FaultProxy]:
    with FaultProxy(module_database) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def exposed(proxy: FaultProxy, root_key: str) -> Iterator[Replica]:
    with serving(proxy.url, root_key) as replica:
        yield replica


@dataclass(frozen=True)
class Scene:
    """Two replicas that are well, a key to revoke that both have in memory, and one that nobody touches."""

    steady: Replica
    exposed: Replica
    proxy: FaultProxy
    database: str
    key: NewKey
    other: NewKey

    def revoke(self) -> pb.Propagation:
        """Revoke the key at the steady replica, which takes no longer than a lease and its margin."""
        propagation, took = revoke(self.steady, self.key)
        assert took < LEASE_AND_MARGIN + TOLERANCE
        return propagation

    def assert_well_again(self) -> None:
        """Both replicas decide on what is true, and confirm what changes, with nobody's help."""
        wait_until(lambda: self.exposed.allows(self.other.key_string))
        for replica in (self.steady, self.exposed):
            assert replica.verify(self.key.key_string).decision == DECISION_DENY
        wait_until(lambda: revoke(self.steady, self.key)[0].replicas_confirmed == 2)


@pytest.fixture
def scene(steady: Replica, exposed: Replica, proxy: FaultProxy, module_database: str) -> Iterator[Scene]:
    key, other = make_key(steady), make_key(steady)
    for replica in (steady, exposed):
        for key_string in (key.key_string, other.key_string):
            wait_until(lambda replica=replica, key_string=key_string: replica.allows(key_string))  # type: ignore[misc]
    yield Scene(steady, exposed, proxy, module_database, key, other)
    proxy.restore()
    wait_until(lambda: exposed.allows(other.key_string))


# The failures that every replica lives through ------------------------------------------------------------------------


def test_without_failure_a_revocation_is_confirmed_by_all(scene: Scene) -> None:
    propagation = scene.revoke()
    assert (propagation.replicas_confirmed, propagation.leases_expired) == (2, 0)
    assert scene.exposed.verify(scene.key.key_string).decision == DECISION_DENY


def test_a_replica_whose_connections_break_comes_back_by_itself(scene: Scene) -> None:
    scene.proxy.drop()
    scene.revoke()
    assert not scene.exposed.allows(scene.key.key_string)
    scene.assert_well_again()


def waiting_it_out(scene: Scene, revoke_meanwhile: Callable[[Scene], pb.Propagation]) -> pb.Propagation:
    """What a revocation tells that waits for the exposed replica's lease to end, as nothing is heard of it.

    revoke_meanwhile: makes the failure, revokes the key, and mends it. Done again where nothing was waited for: once in
    ten seconds the chore that forgets the dead may see the lease end before the revocation does.
    """
    propagation = revoke_meanwhile(scene)
    return propagation if propagation.leases_expired else revoke_meanwhile(scene)


def revoke_while_stalled(scene: Scene) -> pb.Propagation:
    lost = scene.exposed.logged("feed_lost")
    scene.proxy.stall()
    stalled_for = wait_until(lambda: scene.exposed.logged("feed_lost") > lost)
    assert stalled_for < LEASE + TOLERANCE
    propagation = scene.revoke()
    assert not scene.exposed.allows(scene.key.key_string)
    scene.proxy.restore()
    scene.assert_well_again()
    return propagation


def test_a_stalled_connection_is_noticed_within_the_lease(scene: Scene) -> None:
    propagation = waiting_it_out(scene, revoke_while_stalled)
    assert (propagation.replicas_confirmed, propagation.leases_expired) == (1, 1)


def test_connections_that_a_firewall_forgot_are_replaced(scene: Scene) -> None:
    scene.proxy.stall_open_ones()
    scene.revoke()
    assert not scene.exposed.allows(scene.key.key_string)
    scene.assert_well_again()


def test_a_restart_of_postgres_needs_no_restart_of_ours(scene: Scene, postgres: OwnPostgres) -> None:
    postgres.restart("fast")
    wait_until(lambda: scene.steady.allows(scene.other.key_string))
    wait_until(lambda: code_of(scene.revoke) is grpc.StatusCode.OK)
    assert not scene.exposed.allows(scene.key.key_string)
    scene.assert_well_again()


@contextmanager
def paused(replica: Replica) -> Iterator[None]:
    """Stop the process, as a hypervisor or a debugger does."""
    replica.process.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        replica.process.signal(signal.SIGCONT)


def revoke_while_paused(scene: Scene) -> pb.Propagation:
    with ThreadPoolExecutor() as threads:
        with paused(scene.exposed):
            propagation = scene.revoke()
            # Sent after the revocation, and answered by a process that for its own part has missed nothing.
            answers = [threads.submit(scene.exposed.verify, scene.key.key_string) for _ in range(10)]
            time.sleep(0.1)
        assert {answer.result().decision for answer in answers} == {DECISION_DENY}
    scene.assert_well_again()
    return propagation


def test_a_replica_that_was_paused_for_longer_than_its_lease_uses_nothing_it_remembers(scene: Scene) -> None:
    propagation = waiting_it_out(scene, revoke_while_paused)
    assert (propagation.replicas_confirmed, propagation.leases_expired) == (1, 1)


def test_changes_that_were_pruned_before_a_replica_read_them_are_not_missed(scene: Scene) -> None:
    with paused(scene.exposed):
        scene.revoke()
        fetch(scene.database, PRUNE)
        assert fetch(scene.database, "SELECT count(*) FROM changes") == 0
    assert not scene.exposed.allows(scene.key.key_string)
    scene.assert_well_again()


# Others who hold the lock ---------------------------------------------------------------------------------------------


LOCK_HOLDERS = "SELECT count(*) FROM pg_locks WHERE relation = 'revision_clock'::regclass AND mode = 'RowExclusiveLock'"
ATTEMPTS = 8


def is_overloaded(call: Callable[[], object]) -> bool:
    """Whether it is refused, which has to be within the lease and with an invitation to try again."""
    began = time.monotonic()
    try:
        call()
    except grpc.RpcError as error:
        assert time.monotonic() - began < LEASE + TOLERANCE
        refused = refusal_of(error)
        assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert refused.retry_after is not None
        return True
    return False


def test_an_idle_session_that_holds_the_lock_is_told_of_and_then_ended(scene: Scene) -> None:
    def is_told_of() -> bool:
        key = make_key(scene.steady)
        assert scene.exposed.allows(key.key_string)
        with psql(scene.database) as run:
            run("BEGIN")
            run("UPDATE keys SET description = 'lunch' WHERE key_id = '" + scene.other.key_id + "'")
            if told := is_overloaded(lambda: revoke(scene.steady, key)):
                assert scene.steady.allows(key.key_string), "what was refused has not happened"
                wait_until(lambda: code_of(lambda: revoke(scene.steady, key)) is grpc.StatusCode.OK)
            assert not scene.exposed.allows(key.key_string)
            with pytest.raises(asyncpg.PostgresError):
                run("COMMIT")
        return told

    # On a busy machine a revocation may come so late that the session is ended before it is refused.
    assert any(is_told_of() for _ in range(ATTEMPTS))
    scene.revoke()
    scene.assert_well_again()


def test_a_mutator_that_stalls_in_its_transaction_holds_others_up_for_less_than_a_lease(scene: Scene) -> None:
    def holds_others_up() -> bool:
        key = make_key(scene.steady)
        scene.proxy.delay(0.03)
        with ThreadPoolExecutor() as threads:
            stalled = threads.submit(code_of, lambda: revoke(scene.exposed, key))
            wait_until(lambda: stalled.done() or fetch(scene.database, LOCK_HOLDERS) > 0)
            scene.proxy.stall()
            if held_up := is_overloaded(lambda: revoke(scene.steady, scene.key)):
                again = wait_until(lambda: code_of(lambda: revoke(scene.steady, scene.key)) is grpc.StatusCode.OK)
                assert again < LEASE_AND_MARGIN + LEASE + TOLERANCE
            scene.proxy.restore()
            if held_up:
                assert stalled.result() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
        wait_until(lambda: scene.exposed.allows(scene.other.key_string))
        return held_up

    # Whether it is stalled with the lock, and another comes while it has it, is up to the machine.
    assert any(holds_others_up() for _ in range(ATTEMPTS))
    scene.assert_well_again()


# When the database is gone --------------------------------------------------------------------------------------------


def take_the_database_away(proxy: FaultProxy) -> float:
    proxy.refuse()
    proxy.drop()
    return time.monotonic()


def test_without_the_database_nothing_is_decided_after_a_lease(scene: Scene) -> None:
    gone_at = take_the_database_away(scene.proxy)
    wait_until(lambda: not scene.exposed.allows(scene.other.key_string))
    assert time.monotonic() - gone_at < LEASE + TOLERANCE
    refused = refusal(lambda: scene.exposed.verify(scene.other.key_string))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")

    wait_until(lambda: scene.exposed.health(VERIFY_SERVICE) == NOT_SERVING, LEASE + TOLERANCE)
    assert scene.exposed.health("") == SERVING, "a restart would mend nothing"
    assert scene.exposed.process.metrics()["latchgate_lease_valid"] == 0

    scene.proxy.restore()
    wait_until(lambda: scene.exposed.allows(scene.other.key_string))
    wait_until(lambda: scene.exposed.health(VERIFY_SERVICE) == SERVING, LEASE + TOLERANCE)


def test_serve_cached_goes_on_for_as_long_as_it_was_told_and_says_so(
    steady: Replica, module_database: str, root_key: str
) -> None:
    key = make_key(steady)
    settings = {"on_database_loss": "serve_cached", "max_staleness": "3s"}
    with FaultProxy(module_database) as proxy, serving(proxy.url, root_key, **settings) as replica:
        assert not replica.verify(key.key_string).stale
        gone_at = take_the_database_away(proxy)
        wait_until(lambda: replica.verify(key.key_string).stale, LEASE + TOLERANCE)
        assert replica.health(VERIFY_SERVICE) == SERVING
        assert replica.verify(key.key_string).decision == DECISION_ALLOW
        assert replica.process.metrics()["latchgate_stale_decisions_total"] >= 2

        wait_until(lambda: not replica.allows(key.key_string))
        assert 3 - LEASE < time.monotonic() - gone_at < 3 + TOLERANCE
        assert code_of(lambda: replica.verify(key.key_string)) is grpc.StatusCode.UNAVAILABLE
        wait_until(lambda: replica.health(VERIFY_SERVICE) == NOT_SERVING, LEASE + TOLERANCE)

        proxy.restore()
        wait_until(lambda: replica.allows(key.key_string))
        wait_until(lambda: replica.health(VERIFY_SERVICE) == SERVING)
        for fresh in (key, make_key(steady)):
            answer = replica.verify(fresh.key_string)
            assert (answer.decision, answer.stale) == (DECISION_ALLOW, False)
        wait_until(lambda: replica.logged("serving_fresh") == 1)
        assert replica.logged("serving_stale") == 1
