"""What the core and the use cases need from the world outside, as protocols. storage/ and system.py implement them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from latchgate_server.core.charging import HeldLimit
from latchgate_server.core.errors import CannotDecide
from latchgate_server.core.model import Key, KeyState, Plan, Question, Role, SecretHash, Tenant
from latchgate_server.core.record import Record
from latchgate_server.core.verification import Verification


class Clock(Protocol):
    """Time, so that tests can hold it still."""

    def now(self) -> float:
        """Wall time in Unix seconds. Differs between machines; only expiry compares with it."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, and that also pass while the machine is suspended."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for that long on the monotonic clock."""
        ...


class Entropy(Protocol):
    """Randomness fit for secrets."""

    def bytes(self, count: int) -> bytes:
        """That many random bytes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFilter:
    """Which keys to list; None (or empty) means any."""

    tenant_id: str | None = None
    owner: str | None = None
    role_id: str | None = None
    environment: str | None = None
    tags: Mapping[str, str] | None = None
    states: tuple[KeyState, ...] | None = None
    expires_before: datetime | None = None
    rotation_due_before: datetime | None = None
    unused_since: datetime | None = None
    search: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Restrictions:
    """Where and for how long a key can be used, by the names of Key's own fields."""

    resources: tuple[str, ...]
    ip_allowlist_enabled: bool
    ip_allowlist: tuple[str, ...]
    expire_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One administrative change, as stored. `before` and `after` hold the changed fields as JSON."""

    sequence: int
    time: datetime
    tenant_id: str
    actor: str
    actor_ip: str
    method: str
    target_type: str
    target_id: str
    before: Mapping[str, object]
    after: Mapping[str, object]
    reason: str
    revision: int
    pepper_id: str
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which audit events to list; None means any."""

    tenant_id: str | None = None
    target_id: str | None = None
    actor: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class ListPosition:
    """Where an item of a list stands. time: what the list is in the order of, before the number; None: nothing."""

    number: int
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load found for a key id, and in which state of the database.

    record: None where no such key exists; a CannotDecide where what is stored makes no sense.
    revision: that of the snapshot.
    """

    record: Record | CannotDecide | None
    revision: int


@dataclass(frozen=True, slots=True)
class FormsRead:
    """Forms of imported keys, each with its revision, in that order. revision: that of the snapshot."""

    revision: int
    forms: Sequence[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class NewImport:
    """A key of another system to store. form: what it is found by; see core/imported.py."""

    key: Key
    form: str
    secret: SecretHash


@dataclass(frozen=True, slots=True)
class RepeatableCall:
    """A call that makes one key however often it is repeated.

    request_id: the caller's own. digest: of what it asks for, so that the id cannot stand for another call.
    """

    request_id: UUID
    digest: bytes


@dataclass(frozen=True, slots=True)
class EarlierCall:
    """The key that a repeatable call made. digest: None where a version that kept none made it."""

    key_id: str
    digest: bytes | None


class Reader(Protocol):
    """Reads of one moment each. All raise StoreUnavailable or Overloaded where the database gives no answer."""

    async def get_tenant(self, tenant_id: str) -> Tenant | None:
        """The tenant, or None."""
        ...

    async def list_tenants(self, after: str, only: str | None, limit: int) -> Sequence[Tenant]:
        """Up to `limit` tenants in the order of their ids, beginning behind `after`; `only` that one unless None."""
        ...

    async def get_plan(self, plan_id: str) -> Plan | None:
        """The plan, or None."""
        ...

    async def tenant_on_plan(self, plan_id: str) -> str | None:
        """The id of a tenant that is on the plan, or None."""
        ...

    async def list_plans(self, after: str, of_tenant: str | None, limit: int) -> Sequence[Plan]:
        """Up to `limit` plans in the order of their ids; only that of the tenant `of_tenant` unless None."""
        ...

    async def find_roles(self, tenant_id: str, role_ids: Sequence[str]) -> Mapping[str, Role]:
        """Those of these roles that the tenant can use (its own, and those of every tenant), by id."""
        ...

    async def key_with_role(self, role: Role) -> str | None:
        """The id of a key that holds the role, or None."""
        ...

    async def restrictions_of_holders(self, role: Role, limit: int) -> Sequence[Restrictions]:
        """Up to `limit` different combinations of restrictions that unrevoked keys with the role have."""
        ...

    async def list_roles(self, tenant_id: str, after: str, limit: int) -> Sequence[Role]:
        """Up to `limit` roles that the tenant can use, in the order of their ids."""
        ...

    async def role_id_taken(self, tenant_id: str, role_id: str) -> bool:
        """Whether a new role of this id would stand beside another in one tenant's sight."""
        ...

    async def get_key(self, key_id: str) -> Key | None:
        """The key, or None."""
        ...

    async def get_keys(self, key_ids: Sequence[str]) -> Mapping[str, Key]:
        """Those of these keys that exist, by id."""
        ...

    async def taken_key_ids(self, key_ids: Sequence[str]) -> frozenset[str]:
        """Those of these key ids that exist."""
        ...

    async def taken_forms(self, forms: Sequence[str]) -> frozenset[str]:
        """Those of these forms that an imported key is found by."""
        ...

    async def list_keys(
        self, matching: KeyFilter, before: ListPosition | None, limit: int
    ) -> Sequence[tuple[ListPosition, Key]]:
        """Up to `limit` keys, each with its position; only those behind `before` unless None.

        The newest first; but those that expires_before or rotation_due_before asks for by that time, the latest first,
        unless there is a search as well.
        """
        ...

    async def count_keys(self, matching: KeyFilter) -> int:
        """How many keys match."""
        ...

    async def administrators(self, tenant_id: str, grants: Sequence[str], limit: int) -> Sequence[str]:
        """The ids of up to `limit` keys of the tenant that are switched on and hold all of these grants."""
        ...

    async def count_live_keys(self, tenant_id: str) -> int:
        """How many of the tenant's keys are neither revoked nor replaced by a successor."""
        ...

    async def find_request(self, actor: str, request_id: UUID) -> EarlierCall | None:
        """What this actor's call with that id made, or None."""
        ...

    async def list_audit_events(
        self, matching: AuditFilter, before: ListPosition | None, limit: int
    ) -> Sequence[AuditEvent]:
        """Up to `limit` events, the newest first by their times; only those behind `before` unless None."""
        ...

    async def audit_events_after(self, sequence: int, limit: int) -> Sequence[AuditEvent]:
        """Up to `limit` events, oldest first, behind a sequence number."""
        ...

    async def load_records(self, key_ids: Sequence[str]) -> Mapping[str, Loaded]:
        """What there is for each of these key ids, or forms of imported keys, all of one snapshot."""
        ...

    async def read_forms(self, after: tuple[int, str], limit: int) -> FormsRead:
        """Up to `limit` forms of imported keys, behind a revision and a form."""
        ...


class Transaction(Protocol):
    """One mutation in progress. It holds the revision clock's lock, so what it reads stays true until it commits."""

    @property
    def revision(self) -> int:
        """The revision that this change will have."""
        ...

    @property
    def actor(self) -> Loaded:
        """The key of who asks for the change, as it is now that the lock is held."""
        ...

    @property
    def key(self) -> Key | None:
        """The key that is to be changed, as it is now that the lock is held; None where there is none of that id."""
        ...

    @property
    def timeline(self) -> str:
        """The history of the database that this change becomes part of; each promotion begins another."""
        ...

    @property
    def time(self) -> datetime:
        """The database's time when the lock was taken."""
        ...

    @property
    def read(self) -> Reader:
        """Reads within the transaction."""
        ...

    async def insert_tenant(self, tenant: Tenant) -> None:
        """Store a new tenant."""
        ...

    async def update_tenant(self, tenant: Tenant) -> None:
        """Store the tenant's new fields."""
        ...

    async def delete_tenant(self, tenant_id: str) -> None:
        """Remove the tenant with its keys and roles."""
        ...

    async def insert_plan(self, plan: Plan) -> None:
        """Store a new plan."""
        ...

    async def update_plan(self, plan: Plan) -> None:
        """Store the plan's new fields."""
        ...

    async def delete_plan(self, plan_id: str) -> None:
        """Remove the plan, which no tenant is on."""
        ...

    async def insert_role(self, role: Role) -> None:
        """Store a new role."""
        ...

    async def update_role(self, role: Role) -> None:
        """Store the role's new fields."""
        ...

    async def delete_role(self, role: Role) -> None:
        """Remove the role, which no key holds."""
        ...

    async def insert_key(self, key: Key, secret: SecretHash) -> None:
        """Store a new key with its roles."""
        ...

    async def insert_imports(self, imports: Sequence[NewImport]) -> None:
        """Store new keys of other systems with their roles."""
        ...

    async def update_key(self, before: Key, after: Key) -> Key:
        """Store the key's new fields and, where they differ, roles; returns it as stored. Raises ResourceNotFound."""
        ...

    async def replace_secret(self, key_id: str, old: SecretHash, new: SecretHash) -> bool:
        """Store a new hash in place of the old one; False where another one is stored by now."""
        ...

    async def delete_key(self, key_id: str) -> None:
        """Remove the key."""
        ...

    async def set_limit(self, held: HeldLimit, spent: int) -> None:
        """Note that so much counts as taken of the limit from now on."""
        ...

    async def insert_request(self, actor: str, call: RepeatableCall, key_id: str) -> None:
        """Remember which key a call made."""
        ...

    async def last_audit_event(self) -> tuple[int, bytes]:
        """Sequence and hash of the newest audit event; (0, b"") before the first."""
        ...

    async def insert_audit_events(self, events: Sequence[AuditEvent]) -> None:
        """Append to the audit log, in this order."""
        ...


class KeyVerifier(Protocol):
    """Whoever decides about credentials."""

    async def verify(self, key_string: str, question: Question, at_least_revision: int = 0) -> Verification:
        """Decide about a credential as it was presented. Raises CannotDecide where there is no telling."""
        ...

    def verify_from_memory(
        self, key_string: str, question: Question, at_least_revision: int = 0
    ) -> Verification | None:
        """The same, where neither the database nor Argon2 need be asked; else None."""
        ...

    async def identify(self, key_string: str, client_ip: str) -> Record | None:
        """The record of the key that the credential proves, whatever it may be used for; None where it proves none."""
        ...


class RenewsHashes(Protocol):
    """Whoever makes hashes anew in the background."""

    def renew(self, key_id: str, secret: str, sealed: SecretHash) -> None:
        """Have the hash of a secret that just verified made anew, some time, if it is still the same then."""
        ...


class Store(Protocol):
    """The database."""

    @property
    def read(self) -> Reader:
        """Reads outside any transaction."""
        ...

    def change(self, actor_key_id: str = "", key_id: str = "") -> AbstractAsyncContextManager[Transaction]:
        """A transaction that has taken the revision clock; it commits when left, and rolls back on an exception.

        actor_key_id: the key of who asks for the change; empty for Latchgate itself. key_id: the key to be changed, if
        it is one.
        """
        ...

    async def key_id_tag_key(self) -> bytes:
        """The key of the tag in key ids."""
        ...

    async def current_revision(self) -> int:
        """The newest committed revision."""
        ...
