"""What administrators, a hand at psql, replicas, their connections and time may do, in an order that Hypothesis makes.

The machine judges every decision by its model.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from latchgate_server.admin.barrier import Propagation
from latchgate_server.core.errors import StoreUnavailable
from latchgate_server.core.model import Key, KeyState, Role, Tenant
from latchgate_server.core.verification import Verification
from latchgate_server.hashing import NewCredential
from tests.consistency.model import Model, ModelKey
from tests.consistency.races import ANY_KEY, ANY_TENANT, KEYS, LEASES_AND_RATES, RACES, REPLICAS, VERBS, Race
from tests.consistency.world import READ, WRITE, Deployment, Replica, open_world

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Held:
    """Verifications of every key whose load is under way; `since` is the oldest state that they may be decided on."""

    verifications: asyncio.Task[list[Verification]]
    place: str
    since: int


class Waiting(NamedTuple):
    """A mutation at the barrier: the index of the state that it led to, and how many promotions there were by then."""

    state: int
    promotions: int


class Replicas(RuleBasedStateMachine):
    """Two replicas and a mutator, and up to KEYS keys in two tenants.

    `states` are the model's, one for each change in the order of their commits; `returned` is the index of the newest
    one whose change has returned, `revision` what it then reported.
    """

    loop: ClassVar[asyncio.AbstractEventLoop]
    deployment: ClassVar[Deployment]

    def __init__(self) -> None:
        super().__init__()
        self.stack = AsyncExitStack()
        self.states = [Model()]
        self.returned = 0
        self.revision = 0
        self.waiting: dict[asyncio.Task[Any], Waiting] = {}
        self.promotions = 0
        self.held: dict[Replica, Held] = {}
        self.numbers = itertools.count()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        for replica in list(self.held):
            self.run(self._release(replica))
        self.run(self.stack.aclose())

    @property
    def now(self) -> Model:
        return self.states[-1]

    @initialize()
    def begin(self) -> None:
        """Two keys, one of which may read by its role, are known to every replica."""
        self.run(self._begin())

    async def _begin(self) -> None:
        self.world = world = await self.stack.enter_async_context(open_world(self.deployment))
        self.tenant_ids = [world.tenant_id, f"{world.tenant_id}-b"]
        self.credentials = [self.deployment.hasher.foretell() for _ in range(KEYS)]
        self.unborn = list(self.credentials)
        await world.done(world.tenants.create(world.caller("CreateTenant"), Tenant(tenant_id=self.tenant_ids[1])))
        role_id = f"{world.tenant_id}-0"
        await world.done(self._create_role(role_id, READ))
        for tenant_id, permissions, role_ids in zip(self.tenant_ids, [(READ,), ()], [(), (role_id,)], strict=True):
            await world.done(self._create_key(tenant_id, permissions, role_ids))
        self.states = [
            Model(
                tenants=dict.fromkeys(self.tenant_ids, True),
                roles={role_id: READ},
                keys={
                    self.credentials[0].key_id: ModelKey(self.tenant_ids[0], (READ,)),
                    self.credentials[1].key_id: ModelKey(self.tenant_ids[1], (), (role_id,)),
                },
            )
        ]
        for lease, rate in LEASES_AND_RATES:
            await (await world.start(lease, rate)).run_to("idle")

    # Changes --------------------------------------------------------------------------------------------------------

    def change(self, race: Race, mutation: Coroutine[Any, Any, Any], after: Model) -> None:
        """Commit a change; it may wait at the barrier for as long as the other rules let it."""
        self.come_to(race.number, race.before)
        if race.trouble == "load":
            self.hold_load(race.number)
        self.world.table.hold = race.trouble == "slow mutator"
        self.states.append(after)
        task = self.run(self.world.stage.start(mutation))
        self.waiting[task] = Waiting(len(self.states) - 1, self.promotions)
        if race.notified:
            for replica in self.world.replicas:
                replica.notify()
        if race.trouble == "prune":
            self.prune()
        self.come_to(race.number, race.after)
        self.pause(race.number, race.seconds)

    def pick(self, number: int) -> str:
        """The id of some key that exists."""
        key_ids = list(self.now.keys)
        return key_ids[number % len(key_ids)]

    def _create_key(self, tenant_id: str, permissions: tuple[str, ...], role_ids: tuple[str, ...]) -> Any:
        self.unborn.pop(0)
        draft = Key(key_id="", tenant_id=tenant_id, permissions=permissions, role_ids=role_ids)
        return self.world.keys.create(self.world.caller("CreateKey"), draft, "", None)

    def _create_role(self, role_id: str, permission: str) -> Any:
        return self.world.roles.create(
            self.world.caller("CreateRole"), Role(role_id=role_id, permissions=(permission,))
        )

    @precondition(lambda self: self.unborn)
    @rule(tenant=ANY_TENANT, may_read=st.booleans(), race=RACES)
    def create_key(self, tenant: int, may_read: bool, race: Race) -> None:
        key_id, tenant_id = self.unborn[0].key_id, self.tenant_ids[tenant]
        permissions, role_ids = (READ,) if may_read else (), tuple(self.now.roles)[-1:]
        after = self.now.with_key(key_id, ModelKey(tenant_id, permissions, role_ids))
        self.change(race, self._create_key(tenant_id, permissions, role_ids), after)

    @precondition(lambda self: self.now.keys)
    @rule(number=ANY_KEY, verb=VERBS, race=RACES)
    def change_key(self, number: int, verb: str, race: Race) -> None:
        key_id = self.pick(number)
        key = self.now.keys[key_id]
        if key.state is KeyState.REVOKED and verb not in ("revoke", "delete"):
            return
        match verb:
            case "give role":
                self._give_role(key_id, key, race)
            case "delete":
                self.change(race, self.world.change(verb, key_id), self.now.without_key(key_id))
            case "expire":
                self.change(
                    race, self.world.change(verb, key_id), self.now.with_key(key_id, replace(key, expired=True))
                )
            case _:
                state = {"enable": KeyState.ACTIVE, "disable": KeyState.DISABLED, "revoke": KeyState.REVOKED}[verb]
                self.change(race, self.world.change(verb, key_id), self.now.with_key(key_id, replace(key, state=state)))

    def _give_role(self, key_id: str, key: ModelKey, race: Race) -> None:
        """Create a role that may not read, and let the key have it in place of those it has."""
        role_id = f"{self.world.tenant_id}-{len(self.now.roles)}"
        self.change(race, self._create_role(role_id, WRITE), self.now.with_role(role_id, WRITE))
        update = self.world.keys.update(self.world.caller("UpdateKey"), key_id, {"role_ids": (role_id,)}, "")
        self.change(race, update, self.now.with_key(key_id, replace(key, role_ids=(role_id,))))

    @rule(tenant=ANY_TENANT, enabled=st.booleans(), race=RACES)
    def switch_tenant(self, tenant: int, enabled: bool, race: Race) -> None:
        tenant_id = self.tenant_ids[tenant]
        caller = self.world.caller("EnableTenant" if enabled else "DisableTenant")
        switch = self.world.tenants.set_enabled(caller, tenant_id, enabled, "")
        self.change(race, switch, self.now.with_tenant(tenant_id, enabled))

    @rule(what=st.sampled_from(["key", "role", "tenant", "keys"]), number=ANY_KEY, on=st.booleans(), race=RACES)
    def type_sql(self, what: str, number: int, on: bool, race: Race) -> None:
        """Somebody changes a decision table by hand, and then waits as a mutation does."""
        now, tenant_id = self.now, self.tenant_ids[number % 2]
        if what == "key" and now.keys:
            key_id, state = self.pick(number), KeyState.ACTIVE if on else KeyState.DISABLED
            after = now.with_key(key_id, replace(now.keys[key_id], state=state, tenant_id=tenant_id))
            statement = "UPDATE keys SET state = $2, tenant_id = $3 WHERE key_id = $1"
            self.change(race, self._type(statement, key_id, state.name, tenant_id), after)
        elif what == "role":
            role_id, permission = list(now.roles)[number % len(now.roles)], READ if on else WRITE
            statement = "UPDATE roles SET permissions = $2 WHERE role_id = $1"
            self.change(race, self._type(statement, role_id, [permission]), now.with_role(role_id, permission))
        elif what == "tenant":
            statement = "UPDATE tenants SET enabled = $2 WHERE tenant_id = $1"
            self.change(race, self._type(statement, tenant_id, on), now.with_tenant(tenant_id, on))
        else:
            expired = {
                key_id: replace(key, expired=not on) for key_id, key in now.keys.items() if key.tenant_id == tenant_id
            }
            statement = "UPDATE keys SET expired = $2, expire_time = NULL WHERE tenant_id = $1"
            self.change(race, self._type(statement, tenant_id, not on), replace(now, keys={**now.keys, **expired}))

    async def _type(self, statement: str, *arguments: object) -> Propagation:
        await self.world.sql(statement, *arguments)
        revision = await self.world.sql("SELECT revision FROM revision_clock")
        return await self.world.barrier.wait(revision, await self.world.timeline())

    # Replicas, connections, time ------------------------------------------------------------------------------------

    @rule(number=REPLICAS, steps=st.integers(1, 9))
    def beat_in_part(self, number: int, steps: int) -> None:
        for _ in range(steps):
            self.run(self.world.replicas[number].step())

    def come_to(self, number: int, where: str) -> None:
        """Let a replica go on to there; where it does not come, through some two beats."""
        for _ in range(14 if where else 0):
            if self.run(self.world.replicas[number].step()) == where:
                return

    @rule(number=REPLICAS, seconds=st.sampled_from([1.0, 18.0, 34.0]))
    def pause(self, number: int, seconds: float) -> None:
        """One replica stands where it is, while the others beat and time passes."""
        for _ in range(2 if seconds else 0):
            for replica in self.world.replicas:
                if replica is not self.world.replicas[number]:
                    self.run(replica.beat())
            self.run(self.world.stage.advance(seconds / 2))

    @rule(seconds=st.sampled_from([0.05, 2.0, 26.0]))
    def advance(self, seconds: float) -> None:
        """Nobody beats for a while."""
        self.run(self.world.stage.advance(seconds))

    @rule(number=REPLICAS, how=st.sampled_from(["connection breaks", "process is killed", "process ends"]))
    def fail(self, number: int, how: str) -> None:
        if how == "connection breaks":
            self.run(self.world.replicas[number].drop())
        else:
            self.run(self._restart(number, how == "process ends"))

    async def _restart(self, number: int, in_order: bool) -> None:
        replica = self.world.replicas[number]
        if in_order:
            await replica.stop()
        else:
            await replica.crash()
        await self._release(replica)
        successor = await self.world.start(*LEASES_AND_RATES[number])
        self.world.replicas.remove(successor)
        self.world.replicas[number] = successor

    @rule(lost=st.sets(REPLICAS), noticed=st.booleans())
    def promote(self, lost: set[int], noticed: bool) -> None:
        self.promotions += 1
        self.run(self.world.promote(*(self.world.replicas[number] for number in lost), noticed=noticed))

    @rule()
    def prune(self) -> None:
        self.run(self.deployment.store.prune_changes(older_than=0.0))

    @precondition(lambda self: self.waiting)
    @rule()
    def let_all_return(self) -> None:
        for task in list(self.waiting):
            self.run(self.world.come_to_an_end(task))

    @precondition(lambda self: self.waiting)
    @rule()
    def give_up(self) -> None:
        """The oldest caller that waits goes away. Its change is committed, but nobody was told."""
        task = next(iter(self.waiting))
        del self.waiting[task]
        task.cancel()
        self.run(asyncio.wait({task}))

    # Decisions ------------------------------------------------------------------------------------------------------

    @rule(number=REPLICAS)
    def hold_load(self, number: int) -> None:
        """Begin verifications of keys that memory has no room for, and stop when the database has answered."""
        replica = self.world.replicas[number]
        if replica not in self.held:
            self.run(self._hold_load(replica))

    async def _hold_load(self, replica: Replica) -> None:
        replica.reader.hold = place = f"load {next(self.numbers)}"
        for credential in self.credentials:
            replica.forget(credential)
        since, stage = self.returned, self.world.stage
        verifications = asyncio.get_running_loop().create_task(self._decide_all(replica))
        await stage.settle(verifications, unless=lambda: stage.halted_at(place) is not None)
        self.held[replica] = Held(verifications, place, since)

    async def _decide_all(self, replica: Replica) -> list[Verification]:
        """What the replica decides about each key."""
        return await asyncio.gather(*map(replica.verify, self.credentials))

    @rule(number=REPLICAS)
    def release_load(self, number: int) -> None:
        self.run(self._release(self.world.replicas[number]))

    async def _release(self, replica: Replica) -> None:
        held = self.held.pop(replica, None)
        if held is not None:
            load = self.world.stage.halted_at(held.place)
            assert load is not None
            await self.world.stage.resume(load)
            for credential, verification in zip(self.credentials, await held.verifications, strict=True):
                self.judge(verification, credential, held.since)

    @rule(number=REPLICAS, key=ANY_KEY)
    def demand_revision(self, number: int, key: int) -> None:
        self.run(self._demand_revision(self.world.replicas[number], self.credentials[key]))

    async def _demand_revision(self, replica: Replica, credential: NewCredential) -> None:
        since, revision = self.returned, self.revision
        decision = asyncio.get_running_loop().create_task(replica.verify(credential, at_least=revision))
        await asyncio.sleep(0)
        await replica.beat()
        verification = await decision
        self.judge(verification, credential, since)
        assert verification.revision >= revision

    @invariant()
    def every_decision_that_starts_now_knows_what_has_returned(self) -> None:
        for task, waiting in list(self.waiting.items()):
            if task.done():
                del self.waiting[task]
                if isinstance(task.exception(), StoreUnavailable) and waiting.promotions < self.promotions:
                    continue  # the change stands, but its caller was told that it may be lost
                result = task.result()
                propagation = result[-1] if isinstance(result, tuple) else result
                self.returned = max(self.returned, waiting.state)
                self.revision = max(self.revision, propagation.revision)
        self.run(self._decide_everywhere())

    async def _decide_everywhere(self) -> None:
        for replica in self.world.replicas:
            for credential, verification in zip(self.credentials, await self._decide_all(replica), strict=True):
                self.judge(verification, credential, self.returned)
                assert verification.revision >= self.revision

    def judge(self, verification: Verification, credential: NewCredential, since: int) -> None:
        """Whether the decision is right in some state since that one."""
        right = {model.answer(credential.key_id) for model in self.states[since:]}
        assert verification.denial_reason in right, f"{verification.denial_reason!r} is none of {right!r}"
