"""The guard against escalation: nobody grants or loosens what they do not hold, by any path."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Protocol

from latchgate_server.admin.access import Caller
from latchgate_server.core.errors import EscalationRefused, ResourceNotFound
from latchgate_server.core.limits import guard_limits
from latchgate_server.core.model import Key, Plan, Role
from latchgate_server.core.ports import Reader, Restrictions
from latchgate_server.core.record import Record, merged_claims

SET_CLAIMS = "latchgate.claims.set"
"""Lets an administrator set what protected services are told to believe."""

_RESTRICTIONS = frozenset({"resources", "ip_allowlist", "expire_time"})

_HOLDERS = 1_000
"""How many differently restricted holders of a role are looked at before a change of it is refused."""

_ALL_FIELDS = frozenset(field.name for field in fields(Key) if field.compare)


def differing(before: Key, after: Key) -> frozenset[str]:
    """The names of the fields that differ."""
    return frozenset(name for name in _ALL_FIELDS if getattr(before, name) != getattr(after, name))


class FindsRoles(Protocol):
    """As much of a Reader as the guard needs."""

    async def find_roles(self, tenant_id: str, role_ids: Sequence[str]) -> Mapping[str, Role]:
        """Those of these roles that the tenant can use, by id."""
        ...


async def guard_whole_key(caller: Caller, read: FindsRoles, before: Key | None, after: Key, plan: Plan | None) -> None:
    """Refuse what would give more than the caller holds, by the key itself, its roles, limits or claims.

    before: None for a new key. plan: of the key's tenant. Raises EscalationRefused, and ResourceNotFound for a role.
    """
    changed = _ALL_FIELDS if before is None else differing(before, after)
    _guard_key(caller, before, after, changed)
    if "limits" in changed and (caller.is_narrowed or not caller.is_root):
        guard_limits(after.limits, plan.key_limits if plan else ())
    held = before.role_ids if before else ()
    roles = await read.find_roles(after.tenant_id, [*held, *after.role_ids])
    for role_id in after.role_ids:
        if role_id not in roles:
            raise ResourceNotFound("role", role_id)
        if role_id not in held:
            guard_role(caller, roles[role_id])
    claims_before = merged_claims([roles[role_id] for role_id in held], before.claims) if before else {}
    _guard_claims(caller, claims_before, merged_claims([roles[role_id] for role_id in after.role_ids], after.claims))


def _guard_grants(caller: Caller, grants: Iterable[str]) -> None:
    """Raise EscalationRefused for the first of these grants that the caller does not hold."""
    for grant in grants:
        if not caller.grants.covers(grant):
            raise EscalationRefused(grant)


def guard_role(caller: Caller, role: Role, before: Role | None = None) -> None:
    """Raise EscalationRefused where holding this role would give what the caller does not hold.

    before: the role as it was; only what it did not give already counts.
    """
    given = set(before.permissions) if before else set()
    _guard_grants(caller, [permission for permission in role.permissions if permission not in given])
    gives_act_as = role.allow_act_as and not (before and before.allow_act_as)
    if gives_act_as and not (caller.record.may_act_as or _is_unbounded(caller)):
        raise EscalationRefused("allow_act_as")
    _guard_claims(caller, before.claims if before else {}, role.claims)


async def guard_holders(caller: Caller, read: Reader, before: Role, after: Role) -> None:
    """Refuse a wider role while a key that is looser than the caller's own holds it.

    What the caller holds it holds within its own restrictions; through such a key it would hold beyond them.
    Raises EscalationRefused, also where too many differently restricted keys hold the role to look at each.
    """
    own = caller.record
    is_restricted = own.scope is not None or own.allowlist is not None or own.identity.expire_time is not None
    gives_act_as = after.allow_act_as and not before.allow_act_as
    is_wider = gives_act_as or bool(set(after.permissions) - set(before.permissions))
    if not is_restricted or not is_wider or _is_unbounded(caller):
        return
    holders = await read.restrictions_of_holders(before, _HOLDERS + 1)
    for holder in holders:
        _guard_restrictions(own, holder, _RESTRICTIONS)
    if len(holders) > _HOLDERS:
        raise EscalationRefused("resources")


def _guard_claims(caller: Caller, before: Mapping[str, object], after: Mapping[str, object]) -> None:
    """Raise EscalationRefused where what a key claims changes, by whatever path, and the caller may not set claims.

    Taking a claim away counts as well: it may be a record filter.
    """
    if before != after:
        _guard_grants(caller, [SET_CLAIMS])


def _guard_key(caller: Caller, before: Key | None, key: Key, changed: Collection[str]) -> None:
    """Raise EscalationRefused where a key with these changed fields would be looser than the caller's own.

    before: None for a new key. changed: names of fields of Key; all of them for a new key. Its roles are guarded by
    `guard_role`, its claims by `_guard_claims`.
    """
    held = set(before.permissions) if before else set()
    _guard_grants(caller, [permission for permission in key.permissions if permission not in held])
    if _is_unbounded(caller):
        return
    own = caller.record
    if "owner" in changed and caller.only_owner is not None and key.owner != caller.only_owner:
        raise EscalationRefused("owner")
    if {"owner", "default_user"} & set(changed) and key.default_user not in ("", key.owner) and not own.may_act_as:
        raise EscalationRefused("default_user")
    # What the caller holds it holds within its own restrictions, and can give no further.
    if before and (set(key.permissions) - held or set(key.role_ids) - set(before.role_ids)):
        changed = _RESTRICTIONS | set(changed)
    _guard_restrictions(own, key, changed)


def _guard_restrictions(own: Record, key: Key | Restrictions, changed: Collection[str]) -> None:
    """Raise EscalationRefused where one of the key's changed restrictions is looser than the caller's own."""
    if "resources" in changed and not _within_scope(own, key):
        raise EscalationRefused("resources")
    if {"ip_allowlist", "ip_allowlist_enabled"} & set(changed) and not _within_allowlist(own, key):
        raise EscalationRefused("ip_allowlist")
    if {"expire_time", "expired"} & set(changed) and not _within_lifetime(own, key):
        raise EscalationRefused("expire_time")


def _is_unbounded(caller: Caller) -> bool:
    """Whether the caller is one like the first administrator, who may grant everything."""
    return (
        caller.is_root and not caller.is_narrowed and caller.grants.covers("*") and caller.grants.covers("latchgate.*")
    )


def _within_scope(own: Record, key: Key | Restrictions) -> bool:
    if own.scope is None:
        return True
    return bool(key.resources) and all(own.scope.covers(resource) for resource in key.resources)


def _within_allowlist(own: Record, key: Key | Restrictions) -> bool:
    if own.allowlist is None:
        return True
    return (
        key.ip_allowlist_enabled
        and bool(key.ip_allowlist)
        and all(own.allowlist.covers(range_) for range_ in key.ip_allowlist)
    )


def _within_lifetime(own: Record, key: Key | Restrictions) -> bool:
    own_end = own.identity.expire_time
    if own_end is None:
        return True
    return key.expire_time is not None and key.expire_time <= own_end
