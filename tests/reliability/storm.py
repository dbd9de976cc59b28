"""A storm of SIGKILL: on servers and on PostgreSQL, while administrators change keys and callers use up a quota.

Whatever was acknowledged must be there afterwards, whatever was not may be; the audit log must be whole; and no more
than the quota may ever have been allowed.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2
from latchgate.v1.decision_pb2 import DECISION_ALLOW
from tests.conformance.house import House
from tests.consistency.torture.cluster import OwnPostgres
from tests.support.ports import free_port
from tests.support.server import Admin, ServerProcess, Verify, environment, run_command

QUOTA = 2_000
_START_SECONDS = 60.0
_LULL_SECONDS = (0.2, 1.0)
_States = set["key_pb2.Key.State.ValueType"]


@dataclass
class Outcome:
    """What came of a storm. lost: changes that were acknowledged and are not there."""

    kills: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    failed: int = 0
    allowed: int = 0
    lost: list[str] = field(default_factory=list)
    audit: str = ""

    def table(self) -> str:
        """For people."""
        kills = ", ".join(f"{name} {count}" for name, count in sorted(self.kills.items()))
        return (
            f"kills: {kills}\n"
            f"changes acknowledged: {self.acknowledged}, failed: {self.failed}, lost: {len(self.lost)}\n"
            f"allowed: {self.allowed}, of a quota of {QUOTA}\naudit log: {self.audit}"
        )


class Storm:
    """On a PostgreSQL of its own with a first administrator, and `servers` replicas."""

    def __init__(self, postgres: OwnPostgres, root_key: str, *, servers: int, seed: int) -> None:
        self._postgres = postgres
        self._root_key = root_key
        self._dice = random.Random(seed)
        self._outcome = Outcome()
        self._states: dict[str, _States] = {}
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._servers = [self._server() for _ in range(servers)]

    def run(self, kills: Sequence[str]) -> Outcome:
        """kills: `server` or `PostgreSQL`, in order; each is started again before the next."""
        with ExitStack() as stack:
            for server in self._servers:
                stack.enter_context(server)
            admin = Admin(self._servers[0].admin_address, self._root_key)
            stack.callback(admin.close)
            house = House(admin)
            self._tenant_id = house.tenant()
            limit = key_pb2.Limit(name="all", quota=key_pb2.Quota(limit=QUOTA, period=key_pb2.Quota.PERIOD_MONTH))
            self._limited = house.key(self._tenant_id, limits=[limit]).key_string
            with self._at_work():
                for kind in kills:
                    time.sleep(self._dice.uniform(*_LULL_SECONDS))
                    self._outcome.kills[kind] += 1
                    {"server": self._kill_server, "PostgreSQL": self._kill_postgres}[kind]()
                time.sleep(_LULL_SECONDS[1])
            self._check(admin)
        return self._outcome

    # What is killed ---------------------------------------------------------------------------------------------------

    def _server(self) -> ServerProcess:
        addresses = {f"{name}_listen": f"127.0.0.1:{free_port()}" for name in ("verify", "admin")}
        return ServerProcess(self._postgres.url, {"lease": "1s", "metrics_listen": "", **addresses})

    def _kill_server(self) -> None:
        server = self._dice.choice(self._servers)
        server.kill()
        self._again(server)

    def _kill_postgres(self) -> None:
        """Its postmaster; what that had started ends by itself, soon, and before that it must not start again."""
        lock = self._postgres.data / "postmaster.pid"
        os.kill(int(lock.read_text(encoding="ascii").split()[0]), signal.SIGKILL)
        began = time.monotonic()
        while _lives_in(self._postgres.data):
            assert time.monotonic() - began < _START_SECONDS, "what PostgreSQL started does not end"
            time.sleep(0.05)
        # Where nobody buries it, a process that was killed still counts as one that runs.
        for file in (lock, *self._postgres.data.glob(".s.PGSQL.*.lock")):
            file.unlink()
        self._postgres.restart("immediate")

    @staticmethod
    def _again(server: ServerProcess) -> None:
        began = time.monotonic()
        while True:
            try:
                return server.start()
            except Exception:
                server.kill()
                if time.monotonic() - began > _START_SECONDS:
                    raise
                time.sleep(0.2)

    # Who works meanwhile ----------------------------------------------------------------------------------------------

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._administer, args=(server,)) for server in self._servers]
        threads += [threading.Thread(target=self._use_up, args=(server,)) for server in self._servers]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join()

    def _administer(self, server: ServerProcess) -> None:
        admin = Admin(server.settings["admin_listen"], self._root_key)
        state = key_pb2.Key.State
        while not self._stopping.is_set():
            made = self._try(lambda: admin.CreateKey(pb.CreateKeyRequest(key=key_pb2.Key(tenant_id=self._tenant_id))))
            if made is None:
                self._stopping.wait(0.05)
                continue
            key_id = made.key.key_id
            self._states[key_id] = {state.STATE_ACTIVE}
            for call, request, after in (
                (admin.DisableKey, pb.DisableKeyRequest(key_id=key_id), state.STATE_DISABLED),
                (admin.EnableKey, pb.EnableKeyRequest(key_id=key_id), state.STATE_ACTIVE),
                (admin.RevokeKey, pb.RevokeKeyRequest(key_id=key_id), state.STATE_REVOKED),
            ):
                # A change that failed may have been committed all the same.
                self._states[key_id].add(after)
                if self._try(lambda call=call, request=request: call(request)) is None:  # type: ignore[misc]  # a lambda's default has no type
                    break
                self._states[key_id] = {after}
        admin.close()

    def _use_up(self, server: ServerProcess) -> None:
        verify = Verify(server.settings["verify_listen"])
        while not self._stopping.is_set():
            with suppress(grpc.RpcError):
                is_allowed = verify(self._limited).decision == DECISION_ALLOW
                with self._lock:
                    self._outcome.allowed += is_allowed
            self._stopping.wait(0.002)
        verify.close()

    def _try(self, call: Callable[[], pb.CreateKeyResponse]) -> pb.CreateKeyResponse | None:
        try:
            response = call()
        except grpc.RpcError:
            with self._lock:
                self._outcome.failed += 1
            return None
        with self._lock:
            self._outcome.acknowledged += 1
        return response

    # What is left -----------------------------------------------------------------------------------------------------

    def _check(self, admin: Admin) -> None:
        """Look at every key, at every server, and walk the audit log."""
        for key_id, states in self._states.items():
            try:
                key = admin.GetKey(pb.GetKeyRequest(key_id=key_id)).key
            except grpc.RpcError as error:
                self._outcome.lost.append(f"{key_id}: {error}")
                continue
            if key.state not in states:
                self._outcome.lost.append(f"{key_id} is {key.state}, not {states}")
        env = environment(self._postgres.url)
        walked = run_command("audit", "verify", env=env)
        self._outcome.audit = (walked.stdout + walked.stderr).strip()
        assert walked.returncode == 0, self._outcome.audit


def _lives_in(folder: Path) -> bool:
    """Whether a process that is alive has the folder as its own. Asks Linux."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink() == folder and "\nState:\tZ" not in (process / "status").read_text():
                return True
    return False
