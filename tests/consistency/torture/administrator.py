"""Administrators: they create keys and switch them off and on, and say when each call began and returned."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import grpc

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2, tenant_pb2
from latchgate.v1.admin_service_pb2_grpc import AdminServiceStub
from tests.consistency.torture.client import (
    CHANNEL_OPTIONS,
    PERMISSION,
    ClientProcess,
    DropKey,
    UseKey,
    Verifier,
    request_for,
)
from tests.consistency.torture.cluster import Cluster, Replica
from tests.consistency.torture.faults import FaultLog
from tests.consistency.torture.judge import Decision, Phase, Switch
from tests.consistency.torture.report import TOLERANCE_SECONDS, Report

CALL_SECONDS = 20.0
STUCK_SECONDS = 60.0
"""For how long nothing may succeed, at any replica, before that is a failure of its own."""
KEYS_PER_PLOT = 8
USED_AFTERWARDS_SECONDS = 8.0
"""For how long clients go on with a key that is off for good: longer than any replica is paused."""
_FORGOTTEN_SECONDS = 30.0
_PACE_SECONDS = 0.25


class Stuck(Exception):
    """Nothing has succeeded for too long."""


class Office:
    """What administrators call by, and what is remembered of their calls."""

    def __init__(self, cluster: Cluster, root_key: str, log: FaultLog, report: Report, choices: random.Random) -> None:
        self._cluster = cluster
        self._metadata = (("authorization", f"Bearer {root_key}"),)
        self._log = log
        self._report = report
        self._random = choices
        self._stack = AsyncExitStack()
        self._stubs: list[Any] = []
        self.verifiers: Sequence[Verifier] = []
        self._revoked_key_id = ""

    async def open(self) -> None:
        """Connect to every replica."""
        for replica in self._cluster.replicas:
            channel = grpc.aio.insecure_channel(replica.admin_address, options=CHANNEL_OPTIONS)
            self._stubs.append(AdminServiceStub(await self._stack.enter_async_context(channel)))
        channels = [
            await self._stack.enter_async_context(
                grpc.aio.insecure_channel(replica.verify_address, options=CHANNEL_OPTIONS)
            )
            for replica in self._cluster.replicas
        ]
        self.verifiers = [Verifier(channel) for channel in channels]
        tenant = tenant_pb2.Tenant(tenant_id="graveyard")
        await self.insist("CreateTenant", pb.CreateTenantRequest(tenant=tenant))
        made = await self.insist("CreateKey", pb.CreateKeyRequest(key=key_pb2.Key(tenant_id="graveyard")))
        self._revoked_key_id = made.key.key_id
        await self.wait_for_replicas()

    async def close(self) -> None:
        """Close the connections."""
        await self._stack.aclose()

    async def call(self, method: str, request: Any, *, replica: Replica | None = None, revokes: bool = False) -> Any:
        """Call one replica, any unless told; the time that a revocation took is noted. Raises AioRpcError."""
        replica = replica or self._random.choice(self._cluster.replicas)
        began = time.monotonic()
        try:
            stub = self._stubs[replica.number]
            response = await getattr(stub, method)(request, metadata=self._metadata, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            self._report.failed_calls[int(error.code().value[0])] += 1
            raise
        if revokes:
            self._note_revocation(replica, began, response.propagation)
        return response

    async def insist(self, method: str, request: Any) -> Any:
        """Call one replica after the other until one does it. Raises Stuck."""
        began = time.monotonic()
        while True:
            try:
                return await self.call(method, request)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.NOT_FOUND:
                    raise
                if time.monotonic() - began > STUCK_SECONDS:
                    raise Stuck(f"{method} fails for {STUCK_SECONDS:.0f} s at any replica: {error.details()}") from None
                await asyncio.sleep(0.1)

    async def revoke(self, key_id: str) -> None:
        """Switch a key off for good, whatever happened to it before. Raises Stuck."""
        try:
            await self.insist("RevokeKey", pb.RevokeKeyRequest(key_id=key_id))
        except grpc.aio.AioRpcError:
            # It is deleted; who deleted it did not live to see every replica confirm it.
            await self.wait_for_replicas()

    async def wait_for_replicas(self, replica: Replica | None = None) -> None:
        """Return when every change that was committed before has reached every replica.

        A repeated revocation changes nothing, and waits for the state that it found. With a replica, that one is asked,
        once, and AioRpcError is raised where it fails.
        """
        request = pb.RevokeKeyRequest(key_id=self._revoked_key_id)
        if replica is None:
            await self.insist("RevokeKey", request)
        else:
            await self.call("RevokeKey", request, replica=replica)

    def _note_revocation(self, replica: Replica, began: float, propagation: pb.Propagation) -> None:
        ended = time.monotonic()
        took = ended - began
        (self._report.troubled if self._log.active(began, ended) else self._report.calm).append(took)
        if self._log.hinders(replica.number, began, ended):
            return
        # Before the wait it may have stood in line for the lock, for half of its replica's lease at most.
        waited = propagation.waited.ToTimedelta().total_seconds()
        self._report.longest_wait = max(self._report.longest_wait, waited)
        bound = self._report.bound + TOLERANCE_SECONDS
        if waited > bound or took > bound + replica.lease / 2:
            self._report.complaints.append(
                f"a revocation at replica {replica.number}, which was well, took {took:.3f} s and waited {waited:.3f} "
                f"s for replicas; during it: {self._log.describe(began, ended)}"
            )


@dataclass(frozen=True, slots=True)
class Role:
    """A role that keys of every tenant share."""

    role_id: str
    switch: Switch


@dataclass(frozen=True, slots=True)
class LiveKey:
    """A key in use."""

    number: int
    key_id: str
    request: bytes
    own: Switch
    expiry: Switch


class Gardens:
    """What the plots share: the numbers of keys, the clients, the roles."""

    def __init__(
        self, office: Office, cluster: Cluster, report: Report, clients: Sequence[ClientProcess], choices: random.Random
    ) -> None:
        self.office = office
        self.cluster = cluster
        self.report = report
        self.random = choices
        self.roles: list[Role] = []
        self._clients = clients
        self._numbers = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Make the shared roles."""
        for number in range(2):
            role = tenant_pb2.Role(role_id=f"shared-{number}", permissions=[PERMISSION])
            await self.office.insist("CreateRole", pb.CreateRoleRequest(role=role))
            self.roles.append(Role(role.role_id, Switch(role.role_id, time.monotonic())))

    async def close(self) -> None:
        """End what runs in the background."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def plant(self, made: pb.CreateKeyResponse, switches: Sequence[Switch]) -> LiveKey:
        """Let clients use a new key. switches: those that it shares with others."""
        now = time.monotonic()
        own, expiry = Switch("own", now), Switch("expiry", now)
        key = LiveKey(next(self._numbers), made.key.key_id, request_for(made.key_string), own, expiry)
        self.report.judge.add_key(key.number, key.key_id, [own, expiry, *switches])
        self.touch(key)
        return key

    def touch(self, key: LiveKey) -> None:
        """Tell clients that it is about to get interesting."""
        for client in self._clients:
            client.send(UseKey(key.number, key.request))

    def probe(self, key: LiveKey) -> None:
        """Verify it at every replica at once: the strictest of questions, right after a revocation has returned."""
        for replica in self.cluster.replicas:
            for _ in range(replica.workers):
                self._start(self._ask(replica.number, key))

    def bury(self, key: LiveKey) -> None:
        """Let clients use a key that is off for good a little longer, and then forget it."""
        self._start(self._forget(key))

    async def _ask(self, replica: int, key: LiveKey) -> None:
        start = time.monotonic()
        outcome = await self.office.verifiers[replica].verify(key.request)
        self.report.judge.judge(Decision(key.number, replica, start, time.monotonic(), outcome))

    async def _forget(self, key: LiveKey) -> None:
        await asyncio.sleep(USED_AFTERWARDS_SECONDS)
        for client in self._clients:
            client.send(DropKey(key.number))
        await asyncio.sleep(_FORGOTTEN_SECONDS)
        self.report.judge.remove_key(key.number)

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Plot:
    """A tenant and its keys, and the one administrator who works on them, one change at a time.

    A call that failed may have changed something, or may do so yet. Nothing but a revocation, which cannot be undone,
    makes an end of such doubts: so that is what the key gets, or every key where the call was about the tenant.
    """

    _numbers = itertools.count()

    def __init__(self, gardens: Gardens) -> None:
        self._gardens = gardens
        self._office = gardens.office
        self._random = gardens.random
        self._keys: list[LiveKey] = []
        self._tenant_id = ""
        self._tenant = Switch("tenant", 0.0)

    async def run(self) -> None:
        """Work until cancelled. Raises Stuck."""
        works: dict[Callable[[], Awaitable[None]], float] = {
            self._disable_and_enable: 4,
            self._expire_and_renew: 2,
            self._revoke: 4,
            self._delete: 2,
            self._revoke_by_hand: 1,
            self._revoke_many_by_hand: 0.5,
            self._switch_tenant: 1,
        }
        await self._settle()
        while True:
            await asyncio.sleep(self._random.uniform(0, _PACE_SECONDS))
            if len(self._keys) < KEYS_PER_PLOT:
                await self._create()
            else:
                [work] = self._random.choices(list(works), list(works.values()))
                await work()

    async def _settle(self) -> None:
        self._tenant_id = f"plot-{next(self._numbers)}"
        tenant = tenant_pb2.Tenant(tenant_id=self._tenant_id)
        try:
            await self._office.call("CreateTenant", pb.CreateTenantRequest(tenant=tenant))
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.1)
            await self._settle()
        self._tenant = Switch("tenant", time.monotonic())

    async def _create(self) -> None:
        role = self._random.choice((*self._gardens.roles, None))
        draft = key_pb2.Key(
            tenant_id=self._tenant_id,
            role_ids=[role.role_id] if role else [],
            permissions=[] if role else [PERMISSION],
        )
        try:
            made = await self._office.call("CreateKey", pb.CreateKeyRequest(key=draft))
        except grpc.aio.AioRpcError:
            return  # nobody knows its secret
        switches = [self._tenant, role.switch] if role else [self._tenant]
        self._keys.append(self._gardens.plant(made, switches))
        self._gardens.report.changes["keys created"] += 1

    async def _disable_and_enable(self) -> None:
        key = self._pick()
        request = pb.DisableKeyRequest(key_id=key.key_id)
        if await self._turn("keys disabled", key, key.own, Phase.OFF, "DisableKey", request):
            await self._dwell()
            enable = pb.EnableKeyRequest(key_id=key.key_id)
            await self._turn("keys enabled", key, key.own, Phase.ON, "EnableKey", enable)

    async def _expire_and_renew(self) -> None:
        key = self._pick()
        request = pb.ExpireKeyRequest(key_id=key.key_id)
        if await self._turn("keys expired", key, key.expiry, Phase.OFF, "ExpireKey", request):
            await self._dwell()
            renewal = pb.UpdateKeyRequest(key=key_pb2.Key(key_id=key.key_id))
            renewal.update_mask.paths.append("expire_time")
            await self._turn("keys renewed", key, key.expiry, Phase.ON, "UpdateKey", renewal)

    async def _revoke(self) -> None:
        key = self._pick()
        request = pb.RevokeKeyRequest(key_id=key.key_id)
        if await self._turn("keys revoked", key, key.own, Phase.OFF, "RevokeKey", request):
            self._bury(key)

    async def _delete(self) -> None:
        key = self._pick()
        request = pb.DeleteKeyRequest(key_id=key.key_id)
        if await self._turn("keys deleted", key, key.own, Phase.OFF, "DeleteKey", request):
            self._bury(key)

    async def _revoke_by_hand(self) -> None:
        await self._update_by_hand("keys revoked by hand", [self._pick()])

    async def _revoke_many_by_hand(self) -> None:
        await self._update_by_hand("many keys revoked by hand", self._random.sample(self._keys, 3))

    async def _update_by_hand(self, kind: str, keys: Sequence[LiveKey]) -> None:
        for key in keys:
            key.own.begin(time.monotonic(), Phase.OFF)
            self._gardens.touch(key)
        await self._gardens.cluster.run_sql(
            "UPDATE keys SET state = 'REVOKED', revoke_time = now() WHERE key_id = ANY ($1)",
            [key.key_id for key in keys],
        )
        await self._office.wait_for_replicas()
        for key in keys:
            self._end(key)
        self._gardens.report.changes[kind] += 1

    async def _switch_tenant(self) -> None:
        off = pb.DisableTenantRequest(tenant_id=self._tenant_id)
        if await self._turn_tenant("tenants disabled", Phase.OFF, "DisableTenant", off):
            await self._dwell()
            on = pb.EnableTenantRequest(tenant_id=self._tenant_id)
            await self._turn_tenant("tenants enabled", Phase.ON, "EnableTenant", on)

    async def _turn(self, kind: str, key: LiveKey, switch: Switch, towards: Phase, method: str, request: Any) -> bool:
        """Make a call about a key. Returns False where it failed, and the key is dead and buried."""
        switch.begin(time.monotonic(), towards)
        self._gardens.touch(key)
        try:
            await self._office.call(method, request, revokes=towards is Phase.OFF)
        except grpc.aio.AioRpcError:
            await self._give_up(key)
            return False
        switch.end(time.monotonic(), towards)
        self._gardens.probe(key)
        self._gardens.report.changes[kind] += 1
        return True

    async def _turn_tenant(self, kind: str, towards: Phase, method: str, request: Any) -> bool:
        self._tenant.begin(time.monotonic(), towards)
        for key in self._keys:
            self._gardens.touch(key)
        try:
            await self._office.call(method, request, revokes=towards is Phase.OFF)
        except grpc.aio.AioRpcError:
            for key in list(self._keys):
                await self._give_up(key)
            await self._settle()
            return False
        self._tenant.end(time.monotonic(), towards)
        self._gardens.probe(self._pick())
        self._gardens.report.changes[kind] += 1
        return True

    async def _give_up(self, key: LiveKey) -> None:
        key.own.begin(time.monotonic(), Phase.OFF)
        await self._office.revoke(key.key_id)
        self._end(key)

    def _end(self, key: LiveKey) -> None:
        key.own.end(time.monotonic(), Phase.OFF)
        self._gardens.probe(key)
        self._bury(key)

    def _bury(self, key: LiveKey) -> None:
        self._keys.remove(key)
        self._gardens.bury(key)

    def _pick(self) -> LiveKey:
        return self._random.choice(self._keys)

    async def _dwell(self) -> None:
        await asyncio.sleep(self._random.uniform(0, 0.5))
