"""Keys of other systems, taken over by the hashes of their credentials."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from latchgate_server.admin.access import Caller, tenant_of_new_key
from latchgate_server.admin.audit import Change
from latchgate_server.admin.barrier import Propagation
from latchgate_server.admin.guard import guard_whole_key
from latchgate_server.admin.mutations import Mutation, Mutations
from latchgate_server.admin.plans import plan_of_tenant
from latchgate_server.core import bounds
from latchgate_server.core.errors import (
    CannotDecide,
    InvalidRequest,
    KeyLimitReached,
    LatchgateError,
    ResourceExists,
    Violation,
)
from latchgate_server.core.model import HashProfile, Key, KeyState, Plan, Role, SecretHash
from latchgate_server.core.permissions import ADMIN_PREFIX
from latchgate_server.core.ports import Clock, NewImport, Reader
from latchgate_server.hashing import SecretHasher

_STRETCH = 32


@dataclass(frozen=True, slots=True)
class ImportDraft:
    """A key as it is asked for. hash: the SHA-256 of its whole credential, or an Argon2 hash of its secret.

    key.key_id: empty, with a SHA-256, for one to be made. An Argon2 hash is within its bounds already.
    """

    key: Key
    hash: bytes | str = field(repr=False)


class Imports:
    """Takes keys over."""

    def __init__(
        self, read: Reader, mutations: Mutations, hasher: SecretHasher, clock: Clock, default_prefix: str
    ) -> None:
        """default_prefix: leads the key ids that are made."""
        self._read = read
        self._mutations = mutations
        self._hasher = hasher
        self._clock = clock
        self._default_prefix = default_prefix

    async def check(self, caller: Caller, drafts: Sequence[ImportDraft]) -> Sequence[Key]:
        """What `run` would store, with no key id where it would make one. Changes nothing, raises what `run` raises."""
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        imports = await _Batch(caller, self._read, now).check(await self._adopted(drafts))
        return [
            new.key if draft.key.key_id else replace(new.key, key_id="")
            for draft, new in zip(drafts, imports, strict=True)
        ]

    async def run(self, caller: Caller, drafts: Sequence[ImportDraft]) -> tuple[Sequence[Key], Propagation]:
        """Store all of the keys, in their order, or none.

        What is refused raises the error of the first key, whose `violations` name others as well: ResourceNotFound for
        a tenant or role, EscalationRefused, KeyLimitReached, ResourceExists, and InvalidRequest for permissions that
        begin with `latchgate.`.
        """
        adopted = await self._adopted(drafts)

        async def change(mutation: Mutation) -> Sequence[Key]:
            transaction = mutation.transaction
            batch = _Batch(mutation.caller, transaction.read, transaction.time)
            imports = await batch.check(adopted)
            await transaction.insert_imports(imports)
            stored = await transaction.read.get_keys([new.key.key_id for new in imports])
            keys = [stored[new.key.key_id] for new in imports]
            for new, key in zip(imports, keys, strict=True):
                by = "SHA-256" if new.secret.profile is HashProfile.DIGEST else "Argon2 hash"
                mutation.audit(Change(before=None, after=key, reason=f"imported by its {by}"))
            return keys

        return await self._mutations.run(caller, change)

    async def _adopted(self, drafts: Sequence[ImportDraft]) -> Sequence[_Adopted]:
        adopted = []
        for place, draft in enumerate(drafts):
            await _take_turns(place)
            adopted.append(self._adopt(draft))
        return adopted

    def _adopt(self, draft: ImportDraft) -> _Adopted:
        key_id = draft.key.key_id or self._hasher.make_credential(self._default_prefix).key_id
        key = replace(draft.key, key_id=key_id)
        if isinstance(draft.hash, bytes):
            secret = self._hasher.adopt_digest(draft.hash)
            return _Adopted(key, secret, self._hasher.forms(draft.hash))
        return _Adopted(key, self._hasher.adopt_argon2(draft.hash), [key_id])


@dataclass(frozen=True, slots=True)
class _Adopted:
    """A draft with its key id. forms: all by which its credential may be stored already; the first is its own."""

    key: Key
    secret: SecretHash
    forms: Sequence[str]


class _Batch:
    """The checks of one request. What many of its keys share is read once."""

    def __init__(self, caller: Caller, read: Reader, now: datetime) -> None:
        self._caller = caller
        self._read = read
        self._now = now
        self._plans: dict[str, Plan | None] = {}
        self._room: dict[str, int] = {}
        self._roles: dict[tuple[str, tuple[str, ...]], Mapping[str, Role]] = {}

    async def check(self, adopted: Sequence[_Adopted]) -> Sequence[NewImport]:
        """The keys as they are to be stored. Raises as Imports.run does."""
        taken_ids = await self._read.taken_key_ids([new.key.key_id for new in adopted])
        taken_forms = await self._read.taken_forms([form for new in adopted for form in new.forms])
        imports: list[NewImport] = []
        refusals: list[tuple[int, LatchgateError]] = []
        for place, new in enumerate(adopted):
            await _take_turns(place)
            try:
                key = await self._checked_key(new.key)
                if new.key.key_id in taken_ids:
                    raise ResourceExists("key", new.key.key_id)
                if not taken_forms.isdisjoint(new.forms):
                    # Whose key it is, perhaps in another tenant, is not told.
                    raise ResourceExists("credential", f"of keys[{place}]")
                imports.append(NewImport(key, new.forms[0], new.secret))
            except LatchgateError as error:
                if isinstance(error, CannotDecide):
                    raise  # that is no key's fault
                refusals.append((place, error))
        if refusals:
            raise _joined(refusals)
        return imports

    async def _checked_key(self, draft: Key) -> Key:
        caller = self._caller
        key = replace(
            draft,
            tenant_id=tenant_of_new_key(caller, draft.tenant_id),
            expired=draft.expire_time is not None and draft.expire_time <= self._now,
            state=KeyState.ACTIVE,
            created_by=caller.key_id,
        )
        plan = await self._plan(key.tenant_id)
        await guard_whole_key(caller, self, None, key, plan)
        roles = await self.find_roles(key.tenant_id, key.role_ids)
        violations = list(_administrative(key, roles))
        if violations:
            raise InvalidRequest(violations)
        if plan and plan.max_keys:
            if self._room[key.tenant_id] <= 0:
                raise KeyLimitReached(plan.max_keys)
            self._room[key.tenant_id] -= 1
        return key

    async def _plan(self, tenant_id: str) -> Plan | None:
        if tenant_id not in self._plans:
            plan = await plan_of_tenant(self._read, tenant_id)
            if plan and plan.max_keys:
                self._room[tenant_id] = plan.max_keys - await self._read.count_live_keys(tenant_id)
            self._plans[tenant_id] = plan
        return self._plans[tenant_id]

    async def find_roles(self, tenant_id: str, role_ids: Sequence[str]) -> Mapping[str, Role]:
        """Implements guard.FindsRoles: each combination of roles is read once."""
        if not role_ids:
            return {}
        wanted = (tenant_id, tuple(role_ids))
        if wanted not in self._roles:
            self._roles[wanted] = await self._read.find_roles(tenant_id, role_ids)
        return self._roles[wanted]


async def _take_turns(place: int) -> None:
    """Let verifications have their turn, every few milliseconds."""
    if place % _STRETCH == 0:
        await asyncio.sleep(0)


def _administrative(key: Key, roles: Mapping[str, Role]) -> Iterator[Violation]:
    """What would make an administrator of a key whose secret was not made here."""
    told = f"no permissions that begin with {ADMIN_PREFIX}: an imported key is never an administrator's"
    for place, permission in enumerate(key.permissions):
        if permission.startswith(ADMIN_PREFIX):
            yield Violation(f"key.permissions[{place}]", told)
    for place, role_id in enumerate(key.role_ids):
        if any(permission.startswith(ADMIN_PREFIX) for permission in roles[role_id].permissions):
            yield Violation(f"key.role_ids[{place}]", told)


def _joined(refusals: Sequence[tuple[int, LatchgateError]]) -> LatchgateError:
    """The first error, naming what is wrong with each key."""
    violations: list[Violation] = []
    for place, error in refusals:
        if isinstance(error, InvalidRequest):
            violations += [replace(found, field=f"keys[{place}].{found.field}") for found in error.violations]
        else:
            violations.append(Violation(f"keys[{place}]", str(error)))
    first = refusals[0][1]
    if isinstance(first, InvalidRequest):
        return InvalidRequest(violations)
    first.violations = tuple(violations[: bounds.VIOLATIONS])
    return first
