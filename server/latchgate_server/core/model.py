"""The words of the house as values: what is stored, what is asked, what is decided.

Everything here is frozen. Times are aware datetimes in UTC, durations are seconds. Enumerations carry the numbers of
their namesakes in the protos, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Final, NamedTuple

from latchgate_server.core.permissions import Requirement

ROOT_TENANT: Final = "latchgate"
"""The tenant whose administrators administer every other."""

SYSTEM_ACTOR: Final = "system"
"""Who acts where no administrator does: `latchgate init` and the server itself."""


class Decision(IntEnum):
    """The outcome of a verification."""

    UNSPECIFIED = 0
    ALLOW = 1
    DENY = 2


class DenialReason(IntEnum):
    """Why a key was denied. Checks run in the order of these numbers; the first that fails is the reason."""

    UNSPECIFIED = 0
    MISSING_API_KEY = 1
    INVALID_API_KEY = 2
    SECRET_REQUIRED = 3
    INVALID_SECRET = 4
    TENANT_DISABLED = 5
    API_KEY_REVOKED = 6
    API_KEY_DISABLED = 7
    API_KEY_EXPIRED = 8
    IP_NOT_AUTHORIZED = 9
    TENANT_MISMATCH = 10
    RESOURCE_NOT_IN_SCOPE = 11
    CAPABILITY_NOT_IN_PLAN = 12
    INSUFFICIENT_PERMISSIONS = 13
    ACT_AS_NOT_ALLOWED = 14
    RATE_LIMITED = 15
    QUOTA_EXCEEDED = 16


class KeyState(IntEnum):
    """Whether a key is switched on. That it has expired is derived, not a state."""

    ACTIVE = 1
    DISABLED = 2
    REVOKED = 3


class QuotaPeriod(IntEnum):
    """The calendar period, in UTC, over which a quota counts."""

    DAY = 1
    MONTH = 2
    LIFETIME = 3


class HashProfile(StrEnum):
    """How the secret was made, and so how much work its hash must be; see hashing.py.

    FOREIGN: another system's Argon2 hash as it came, until its first use makes it IMPORTED. DIGEST: a keyed digest of
    the SHA-256 of a whole credential, which may have any form.
    """

    GENERATED = "generated"
    IMPORTED = "imported"
    FOREIGN = "foreign"
    DIGEST = "digest"


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `limit` in `period` seconds, with bursts up to `burst` (0: the same as `limit`)."""

    name: str
    limit: int
    period: float
    burst: int = 0


@dataclass(frozen=True, slots=True)
class Quota:
    """At most `limit` in each calendar period."""

    name: str
    limit: int
    period: QuotaPeriod


Limit = RateLimit | Quota


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A company, workspace or team: the boundary that keys never cross."""

    tenant_id: str
    display_name: str = ""
    enabled: bool = True
    plan_id: str = ""
    limits: tuple[Limit, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    create_time: datetime | None = None
    update_time: datetime | None = None
    etag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a tenant has bought. `max_keys` 0: unlimited."""

    plan_id: str
    display_name: str = ""
    capabilities: tuple[str, ...] = ()
    key_limits: tuple[Limit, ...] = ()
    tenant_limits: tuple[Limit, ...] = ()
    max_keys: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None
    etag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A named set of permissions. `tenant_id` empty: usable by every tenant."""

    role_id: str
    tenant_id: str = ""
    display_name: str = ""
    description: str = ""
    permissions: tuple[str, ...] = ()
    claims: Mapping[str, object] = field(default_factory=dict)
    allow_act_as: bool = False
    create_time: datetime | None = None
    update_time: datetime | None = None
    etag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastUse:
    """A key's latest use; what is empty was not told."""

    time: datetime
    client_ip: str
    user: str
    user_agent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An API key without its secret.

    expired: the stored flag that ExpireKey sets and that decides without any clock; `has_expired` in policy.py adds
    what the clock says.
    lineage_id: the key id of the first key before all rotations; empty for a first key that is not stored yet.
    last_use: nothing that anybody changes, so it does not count when keys are compared.
    """

    key_id: str
    tenant_id: str
    display_name: str = ""
    description: str = ""
    owner: str = ""
    default_user: str = ""
    role_ids: tuple[str, ...] = ()
    permissions: tuple[str, ...] = ()
    claims: Mapping[str, object] = field(default_factory=dict)
    environment: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    ip_allowlist_enabled: bool = False
    ip_allowlist: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    expire_time: datetime | None = None
    expired: bool = False
    rotate_by_time: datetime | None = None
    limits: tuple[Limit, ...] = ()
    state: KeyState = KeyState.ACTIVE
    create_time: datetime | None = None
    created_by: str = ""
    update_time: datetime | None = None
    revoke_time: datetime | None = None
    revocation_reason: str = ""
    lineage_id: str = ""
    predecessor_key_id: str = ""
    successor_key_id: str = ""
    etag: str = ""
    last_use: LastUse | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretHash:
    """All that is kept of a secret. None of it is ever shown.

    pepper_id: which pepper the hash and the tag were made under; empty for a FOREIGN one, which none had a part in.
    phc: the Argon2id hash of the peppered secret, as a PHC string; of a DIGEST the form that the key is found by.
    tag: 4 bytes that refuse a wrong secret before Argon2 runs; None for an imported secret.
    """

    profile: HashProfile
    pepper_id: str
    phc: str = field(repr=False)
    tag: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a proven key speaks for."""

    key_id: str
    tenant_id: str
    display_name: str
    owner: str
    user: str
    role_ids: tuple[str, ...]
    permissions: tuple[str, ...]
    capabilities: tuple[str, ...]
    claims: Mapping[str, object]
    environment: str
    tags: Mapping[str, str]
    expire_time: datetime | None
    resources: tuple[str, ...]


class RequestInfo(NamedTuple):
    """The end client's request, as far as the caller wants it recorded. It has no part in the decision."""

    method: str
    host: str
    path: str
    user_agent: str


NOT_TOLD: Final = RequestInfo("", "", "", "")


class Question:
    """What a verification asks, beside the credential. Empty means: not asked for.

    requirement: an expression over permissions, parsed; see permissions.py.
    cost: what to take from each limit; 0: see whether 1 could be taken, and take nothing; None: ask no limit.
    request: for usage records and the access log.
    """

    __slots__ = ("act_as", "capability", "client_ip", "cost", "request", "requirement", "resource", "tenant_id")

    def __init__(  # noqa: PLR0917 - a verification asks for all of it, by position where it must be fast
        self,
        client_ip: str = "",
        tenant_id: str = "",
        requirement: Requirement | None = None,
        capability: str = "",
        act_as: str = "",
        resource: str = "",
        cost: int | None = 1,
        request: RequestInfo | None = None,
    ) -> None:
        self.client_ip: Final = client_ip
        self.tenant_id: Final = tenant_id
        self.requirement: Final = requirement
        self.capability: Final = capability
        self.act_as: Final = act_as
        self.resource: Final = resource
        self.cost: Final = cost
        self.request: Final = request
