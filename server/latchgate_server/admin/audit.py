"""The audit log: what each change altered, chained so that tampering shows.

Each event's hash is HMAC-SHA256 over the previous event's hash and this event as canonical JSON (RFC 8785), under a key
derived from the pepper. Who can write to the database but has no pepper can neither alter nor remove an event, nor put
two in another order, without breaking the chain.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import IntEnum
from typing import Any, cast

import rfc8785

from latchgate_server.core.charging import LimitReset
from latchgate_server.core.model import Key, Plan, Quota, RateLimit, Role, Tenant
from latchgate_server.core.ports import AuditEvent, Transaction
from latchgate_server.hashing import Peppers

Auditable = Tenant | Plan | Role | Key | LimitReset

_KINDS = {
    Tenant: ("tenant", "tenant_id"),
    Plan: ("plan", "plan_id"),
    Role: ("role", "role_id"),
    Key: ("key", "key_id"),
}
_STRETCH = 16  # events, a few milliseconds' worth
_LEFT_OUT = frozenset({"create_time", "update_time", "etag"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who makes a change: `key_id` is an administrator's, or SYSTEM_ACTOR."""

    key_id: str
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One resource before and after; None where it did not exist. Nothing of it is a secret."""

    before: Auditable | None
    after: Auditable | None
    reason: str = ""

    @property
    def resource(self) -> Auditable:
        """The resource, as it is or as it was."""
        resource = self.after or self.before
        assert resource is not None, "a change is of something"
        return resource


@dataclass(slots=True)
class AuditTrail:
    """The events of one transaction, in the order in which they are added."""

    transaction: Transaction
    peppers: Peppers
    actor: Actor
    method: str
    _changes: list[Change] = field(default_factory=list)

    def add(self, change: Change) -> None:
        """Note a change; `write` stores it."""
        self._changes.append(change)

    @property
    def changes(self) -> Sequence[Change]:
        """What was noted so far."""
        return self._changes

    @property
    def is_empty(self) -> bool:
        """Whether nothing was changed."""
        return not self._changes

    async def write(self) -> None:
        """Append the events to the log, within the transaction."""
        sequence, previous = await self.transaction.last_audit_event()
        events: list[AuditEvent] = []
        for change in self._changes:
            sequence += 1
            events.append(self._event(change, sequence, previous))
            previous = events[-1].hash
            if sequence % _STRETCH == 0:
                await asyncio.sleep(0)  # verifications want their turn
        await self.transaction.insert_audit_events(events)

    def _event(self, change: Change, sequence: int, previous: bytes) -> AuditEvent:
        target_type, target_id = _target(change.resource)
        before, after = changed_fields(change.before, change.after)
        content: dict[str, object] = {
            "sequence": sequence,
            "time": self.transaction.time,
            "tenant_id": getattr(change.resource, "tenant_id", ""),
            "actor": self.actor.key_id,
            "actor_ip": self.actor.address,
            "method": self.method,
            "target_type": target_type,
            "target_id": target_id,
            "before": before,
            "after": after,
            "reason": change.reason,
            "revision": self.transaction.revision,
        }
        pepper_id = self.peppers.current.pepper_id
        return AuditEvent(
            **content,  # type: ignore[arg-type]  # the keys are the fields
            pepper_id=pepper_id,
            hash=chain_hash(self.peppers, pepper_id, previous, content),
        )


def _target(resource: Auditable) -> tuple[str, str]:
    """Type and id of what an event is about."""
    if isinstance(resource, LimitReset):
        return resource.holder.name.lower(), resource.resource_id
    target_type, id_field = _KINDS[type(resource)]
    return target_type, str(getattr(resource, id_field))


def chain_hash(peppers: Peppers, pepper_id: str, previous: bytes, content: Mapping[str, object]) -> bytes:
    """The hash of an event. content: its fields but for `pepper_id` and `hash`. Raises PepperMissing."""
    key = peppers.get(pepper_id).derive("audit chain")
    return hmac.digest(key, previous + rfc8785.dumps(cast(dict[str, Any], _json(content))), "sha256")


def changed_fields(before: Auditable | None, after: Auditable | None) -> tuple[dict[str, object], dict[str, object]]:
    """The fields that differ, as JSON: before and after. Where one side does not exist, all that the other has set."""
    told_before, told_after = _told(before), _told(after)
    if before is None or after is None:
        return _without_empty(told_before), _without_empty(told_after)
    differing = [name for name, value in told_before.items() if told_after[name] != value]
    return {name: told_before[name] for name in differing}, {name: told_after[name] for name in differing}


def _told(resource: Auditable | None) -> dict[str, object]:
    if resource is None:
        return {}
    if isinstance(resource, LimitReset):
        return {"limits": {resource.name: {"remaining": resource.remaining}}}
    return {f.name: _json(getattr(resource, f.name)) for f in fields(resource) if f.compare and f.name not in _LEFT_OUT}


def _without_empty(told: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in told.items() if value not in ("", [], {}, None, False)}


def _json(value: object) -> object:
    """The value as JSON that reads the same in every language: large numbers and times as text."""
    match value:
        case IntEnum():
            return value.name
        case bool() | None | str() | float():
            return value
        case int():
            return value if abs(value) < 2**53 else str(value)
        case datetime():
            return value.isoformat()
        case RateLimit() | Quota():
            return {f.name: _json(getattr(value, f.name)) for f in fields(value)}
        case Mapping():
            return {str(name): _json(inner) for name, inner in value.items()}
        case tuple() | list():
            return [_json(inner) for inner in value]
        case _:
            raise TypeError(f"no JSON form for {type(value).__name__}")
