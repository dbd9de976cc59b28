"""Writes: implements ports.Transaction on one connection that holds the revision clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from latchgate_server.core.charging import HeldLimit
from latchgate_server.core.errors import ResourceNotFound
from latchgate_server.core.model import HashProfile, Key, Plan, Role, SecretHash, Tenant
from latchgate_server.core.ports import AuditEvent, NewImport, RepeatableCall
from latchgate_server.storage.failures import told_plainly
from latchgate_server.storage.pool import Connection
from latchgate_server.storage.queries import SQL
from latchgate_server.storage.reader import PostgresReader
from latchgate_server.storage.rows import Row, key_from, limits_to, loaded_from


class PostgresTransaction:
    """One mutation in progress; made by PostgresStore.change."""

    def __init__(self, connection: Connection, began: Row, key: Row, patience: float) -> None:
        """began, key: the two rows that the statement `change_begun` returned."""
        self._connection = connection
        self.actor = loaded_from(began)
        # A record is found by the form of an imported key as well; administrators name keys by their ids alone.
        self.key = key_from(key) if key["key_id"] == key["id"] else None
        self.revision = self.actor.revision
        self.timeline: str = began["timeline"]
        self.time: datetime = began["time"]
        self._audit_end: tuple[int, bytes] = (began["audit_sequence"], began["audit_hash"])
        self.read = PostgresReader(connection, patience)

    async def insert_tenant(self, tenant: Tenant) -> None:
        await self._run("insert_tenant", *_tenant_values(tenant))

    async def update_tenant(self, tenant: Tenant) -> None:
        await self._run("update_tenant", *_tenant_values(tenant))

    async def delete_tenant(self, tenant_id: str) -> None:
        await self._run("delete_tenant_keys", tenant_id)
        await self._run("delete_tenant", tenant_id)

    async def insert_plan(self, plan: Plan) -> None:
        await self._run("insert_plan", *_plan_values(plan))

    async def update_plan(self, plan: Plan) -> None:
        await self._run("update_plan", *_plan_values(plan))

    async def delete_plan(self, plan_id: str) -> None:
        await self._run("delete_plan", plan_id)

    async def insert_role(self, role: Role) -> None:
        await self._run("insert_role", *_role_values(role))

    async def update_role(self, role: Role) -> None:
        await self._run("update_role", *_role_values(role))

    async def delete_role(self, role: Role) -> None:
        await self._run("delete_role", role.role_id, role.tenant_id)

    async def insert_key(self, key: Key, secret: SecretHash) -> None:
        values = (*_key_values(key), key.created_by, key.lineage_id or key.key_id)
        await self._run("insert_key", key.key_id, key.tenant_id, *values)
        await self._run("insert_secret", key.key_id, secret.profile.value, secret.pepper_id, secret.phc, secret.tag)
        await self._insert_key_roles(key)

    async def insert_imports(self, imports: Sequence[NewImport]) -> None:
        keys = [new.key for new in imports]
        await self._run("insert_keys", [_key_row(key) for key in keys])
        ids, secrets = [key.key_id for key in keys], [new.secret for new in imports]
        profiles, peppers = [secret.profile.value for secret in secrets], [secret.pepper_id for secret in secrets]
        await self._run("insert_secrets", ids, profiles, peppers, [secret.phc for secret in secrets])
        await self._run("insert_imported_forms", [new.form for new in imports], ids)
        held = [
            (key.key_id, key.tenant_id, place, role_id) for key in keys for place, role_id in enumerate(key.role_ids, 1)
        ]
        if held:
            await self._run("insert_roles_of_keys", *map(list, zip(*held, strict=True)))

    async def update_key(self, before: Key, after: Key) -> Key:
        if before.role_ids != after.role_ids:
            await self._run("delete_key_roles", after.key_id)
            await self._insert_key_roles(after)
        with told_plainly():
            row: Any = await self._connection.fetchrow(SQL["update_key"], after.key_id, *_key_values(after))
        if row is None:
            raise ResourceNotFound("key", after.key_id)
        return replace(key_from(row), last_use=before.last_use)

    async def replace_secret(self, key_id: str, old: SecretHash, new: SecretHash) -> bool:
        with told_plainly():
            status = await self._connection.execute(
                SQL["replace_secret"], key_id, old.phc, new.pepper_id, new.phc, new.tag, new.profile.value
            )
        if status != "UPDATE 1":
            return False
        if new.profile is HashProfile.DIGEST:
            await self._run("replace_imported_form", key_id, new.phc)
        return True

    async def delete_key(self, key_id: str) -> None:
        await self._run("delete_key", key_id)

    async def set_limit(self, held: HeldLimit, spent: int) -> None:
        await self._run("set_limit", held.holder.name, held.holder_id, held.limit.name, spent)

    async def insert_request(self, actor: str, call: RepeatableCall, key_id: str) -> None:
        await self._run("insert_request", actor, call.request_id, key_id, call.digest)

    async def last_audit_event(self) -> tuple[int, bytes]:
        return self._audit_end

    async def insert_audit_events(self, events: Sequence[AuditEvent]) -> None:
        rows = [_event_values(event) for event in events]
        with told_plainly():
            if len(rows) == 1:
                await self._connection.execute(SQL["insert_audit_event"], *rows[0])
            elif rows:
                # In one round trip: whoever else wants to change something waits meanwhile.
                await self._connection.executemany(SQL["insert_audit_event"], rows)
        if events:
            self._audit_end = (events[-1].sequence, events[-1].hash)

    async def _insert_key_roles(self, key: Key) -> None:
        if key.role_ids:
            await self._run("insert_key_roles", key.key_id, key.tenant_id, key.role_ids)

    async def _run(self, statement: str, *arguments: object) -> None:
        with told_plainly():
            await self._connection.execute(SQL[statement], *arguments)


def _event_values(event: AuditEvent) -> tuple[object, ...]:
    return (
        event.sequence,
        event.time,
        event.tenant_id,
        event.actor,
        event.actor_ip,
        event.method,
        event.target_type,
        event.target_id,
        event.before,
        event.after,
        event.reason,
        event.revision,
        event.pepper_id,
        event.hash,
    )


def _tenant_values(tenant: Tenant) -> tuple[object, ...]:
    limits = limits_to(tenant.limits)
    return tenant.tenant_id, tenant.display_name, tenant.enabled, tenant.plan_id, limits, tenant.tags


def _plan_values(plan: Plan) -> tuple[object, ...]:
    key_limits, tenant_limits = limits_to(plan.key_limits), limits_to(plan.tenant_limits)
    return plan.plan_id, plan.display_name, plan.capabilities, key_limits, tenant_limits, plan.max_keys


def _role_values(role: Role) -> tuple[object, ...]:
    return (
        role.role_id,
        role.tenant_id,
        role.display_name,
        role.description,
        role.permissions,
        role.claims,
        role.allow_act_as,
    )


def _key_row(key: Key) -> dict[str, object]:
    """The columns of a new key, as JSON."""
    return {
        "key_id": key.key_id,
        "tenant_id": key.tenant_id,
        "display_name": key.display_name,
        "description": key.description,
        "owner": key.owner,
        "default_user": key.default_user,
        "permissions": key.permissions,
        "claims": key.claims,
        "environment": key.environment,
        "tags": key.tags,
        "ip_allowlist_enabled": key.ip_allowlist_enabled,
        "ip_allowlist": key.ip_allowlist,
        "resources": key.resources,
        "expire_time": key.expire_time and key.expire_time.isoformat(),
        "expired": key.expired,
        "rotate_by_time": key.rotate_by_time and key.rotate_by_time.isoformat(),
        "limits": limits_to(key.limits),
        "state": key.state.name,
        "revoke_time": key.revoke_time and key.revoke_time.isoformat(),
        "revocation_reason": key.revocation_reason,
        "predecessor_key_id": key.predecessor_key_id,
        "successor_key_id": key.successor_key_id,
        "created_by": key.created_by,
        "lineage_id": key.lineage_id or key.key_id,
    }


def _key_values(key: Key) -> tuple[object, ...]:
    """What an administrator can change, in the order of the statements insert_key and update_key."""
    return (
        key.display_name,
        key.description,
        key.owner,
        key.default_user,
        key.permissions,
        key.claims,
        key.environment,
        key.tags,
        key.ip_allowlist_enabled,
        key.ip_allowlist,
        key.resources,
        key.expire_time,
        key.expired,
        key.rotate_by_time,
        limits_to(key.limits),
        key.state.name,
        key.revoke_time,
        key.revocation_reason,
        key.predecessor_key_id,
        key.successor_key_id,
    )
