"""The record: a key joined with its tenant, plan and roles, in the form in which a verification reads it.

Built once for each load and then only read, so everything that can be worked out beforehand is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from sys import intern
from typing import Final, TypeVar

from latchgate_server.core.addresses import AddressSet
from latchgate_server.core.charging import NO_RESETS, Holder, Limits, Reset, hold_limits
from latchgate_server.core.model import (
    DenialReason,
    HashProfile,
    Identity,
    Key,
    KeyState,
    Plan,
    Role,
    SecretHash,
    Tenant,
)
from latchgate_server.core.permissions import ADMIN_PREFIX, Grants
from latchgate_server.core.resources import ResourceScope

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record:
    """What a verification needs to know of one key.

    identity: who the key speaks for when the caller names no user.
    standing: why the key is denied whatever is asked; None where it is not.
    expire_at: Unix seconds, infinite for a key that never expires; 0 where the stored flag says that it has.
    allowlist, scope: None where the key is not restricted.
    revision: that of the snapshot which the record was read in.
    told, told_envoy: the identity as answers tell it, to services and to Envoy, once one did; what that looks like is
    the transport's affair.
    """

    identity: Identity
    secret: SecretHash = field(repr=False)
    state: KeyState
    tenant_enabled: bool
    standing: DenialReason | None
    plan_id: str
    role_numbers: tuple[int, ...]
    expire_at: float
    grants: Grants
    capabilities: frozenset[str]
    allowlist: AddressSet | None
    scope: ResourceScope | None
    may_act_as: bool
    limits: Limits
    revision: int
    told: bytes = field(init=False, default=b"", repr=False)
    told_envoy: bytes = field(init=False, default=b"", repr=False)

    def keep_told(self, told: bytes) -> None:
        """Keep the identity as answers tell it to services. Nothing but what is told of a record ever changes."""
        object.__setattr__(self, "told", told)

    def keep_told_envoy(self, told: bytes) -> None:
        """Keep the identity as answers tell it to Envoy."""
        object.__setattr__(self, "told_envoy", told)


# Many keys have the same roles, ranges and limits. What they share is kept once: that saves memory, and what is used by
# all keys stays in the processor's cache.
_NONE: Final[Mapping[str, object]] = {}
_NO_TAGS: Final[Mapping[str, str]] = {}


@lru_cache(maxsize=4_096)
def _shared(values: tuple[_T, ...]) -> tuple[_T, ...]:
    """The tuple that other records have which is equal to this one."""
    return values


@lru_cache(maxsize=1_024)
def _shared_set(values: tuple[str, ...]) -> frozenset[str]:
    return frozenset(values)


@lru_cache(maxsize=4_096)
def _shared_grants(permissions: tuple[str, ...]) -> Grants:
    return Grants(permissions)


@lru_cache(maxsize=4_096)
def _shared_addresses(ranges: tuple[str, ...]) -> AddressSet:
    return AddressSet(ranges)


def build_record(
    *,
    key: Key,
    secret: SecretHash,
    tenant: Tenant,
    plan: Plan | None,
    roles: Sequence[tuple[int, Role]],
    resets: Mapping[tuple[Holder, str], Reset] = NO_RESETS,
    revision: int,
) -> Record:
    """Join a key with what it depends on, all read in one snapshot.

    roles: in the order of key.role_ids, each with the number that changes name it by.
    resets: of the limits of the key's lineage and of its tenant, by holder and name.
    """
    granted = (*key.permissions, *(p for _, role in roles for p in role.permissions))
    if secret.profile is not HashProfile.GENERATED:
        # Nobody here knows how its secret was made, or who else has seen it: it never administers, however it came to
        # be granted that after its import.
        granted = tuple(permission for permission in granted if not permission.startswith(ADMIN_PREFIX))
    grants = _shared_grants(granted)
    capabilities = _shared(tuple(sorted(plan.capabilities))) if plan else ()
    owner = intern(key.owner)
    identity = Identity(
        key_id=key.key_id,
        tenant_id=intern(key.tenant_id),
        display_name=key.display_name,
        owner=owner,
        user=intern(key.default_user) or owner,
        role_ids=_shared(key.role_ids),
        permissions=grants.listed,
        capabilities=capabilities,
        claims=merged_claims([role for _, role in roles], key.claims) or _NONE,
        environment=intern(key.environment),
        tags=key.tags or _NO_TAGS,
        expire_time=key.expire_time,
        resources=key.resources,
    )
    return Record(
        identity=identity,
        secret=secret,
        state=key.state,
        tenant_enabled=tenant.enabled,
        standing=_standing(key.state, tenant.enabled),
        plan_id=intern(tenant.plan_id),
        role_numbers=_shared(tuple(number for number, _ in roles)),
        expire_at=_expire_at(key),
        grants=grants,
        capabilities=_shared_set(capabilities),
        allowlist=_shared_addresses(tuple(key.ip_allowlist)) if key.ip_allowlist_enabled and key.ip_allowlist else None,
        scope=ResourceScope(key.resources) if key.resources else None,
        may_act_as=any(role.allow_act_as for _, role in roles),
        limits=hold_limits(key, tenant, plan, resets),
        revision=revision,
    )


def merged_claims(roles: Iterable[Role], own: Mapping[str, object]) -> Mapping[str, object]:
    """What a key claims: its roles' claims, later ones over earlier ones, and then its own."""
    claims: dict[str, object] = {}
    for role in roles:
        claims.update(role.claims)
    claims.update(own)
    return claims


_STANDINGS: Final = {
    KeyState.ACTIVE: None,
    KeyState.DISABLED: DenialReason.API_KEY_DISABLED,
    KeyState.REVOKED: DenialReason.API_KEY_REVOKED,
}


def _standing(state: KeyState, tenant_enabled: bool) -> DenialReason | None:
    return _STANDINGS[state] if tenant_enabled else DenialReason.TENANT_DISABLED


def _expire_at(key: Key) -> float:
    if key.expired:
        return 0.0
    return key.expire_time.timestamp() if key.expire_time else math.inf
