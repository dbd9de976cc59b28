"""ExplainKey: how each check would go for a key, for the support desk. It takes nothing from limits, and no secret."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from latchgate_server.admin.access import Caller, require_visible
from latchgate_server.core.charging import Charge
from latchgate_server.core.errors import CannotDecide, ResourceNotFound
from latchgate_server.core.limit_stores import ChargesLimits
from latchgate_server.core.model import DenialReason, Key, Question, Quota, RateLimit
from latchgate_server.core.permissions import render_requirement
from latchgate_server.core.policy import CHECKS
from latchgate_server.core.ports import Clock, Reader
from latchgate_server.core.record import Record


@dataclass(frozen=True, slots=True)
class CheckExplained:
    """How one check went. denial_reason: what its failure gives. detail: for people."""

    denial_reason: DenialReason
    passed: bool
    detail: str


class Explanations:
    """Explains decisions."""

    def __init__(self, read: Reader, limits: ChargesLimits, clock: Clock) -> None:
        self._read = read
        self._limits = limits
        self._clock = clock

    async def explain(self, caller: Caller, key_id: str, question: Question) -> Sequence[CheckExplained]:
        """Every check of a key whose secret is proven, in order, also those after the first failure.

        Raises ResourceNotFound, and CannotDecide where what is stored makes no sense.
        """
        key = require_visible(await self._read.get_key(key_id), key_id, caller)
        record = (await self._read.load_records([key_id]))[key_id].record
        if record is None:
            raise ResourceNotFound("key", key_id)
        if isinstance(record, CannotDecide):
            raise record
        now = self._clock.now()
        details = _details(key, record, question, now)
        checks = [
            CheckExplained(check.denial_reason, check.passes(record, question, now), details[check.denial_reason])
            for check in CHECKS
        ]
        return [*checks, *_limit_checks(await self._limits.charge(record.limits, 0))]


def _limit_checks(charge: Charge) -> list[CheckExplained]:
    """How the two checks of limits would go for a call that takes 1."""
    checks = []
    for reason, kind in ((DenialReason.RATE_LIMITED, RateLimit), (DenialReason.QUOTA_EXCEEDED, Quota)):
        statuses = [status for status in charge.statuses if isinstance(status.held.limit, kind)]
        standing = [f"{s.remaining} of {s.held.whole} of {s.held.limit.name} is left" for s in statuses]
        passed = all(status.remaining > 0 for status in statuses)
        checks.append(CheckExplained(reason, passed, f"{_listed(standing)}." if standing else _NO_LIMIT[reason]))
    return checks


_NO_LIMIT = {
    DenialReason.RATE_LIMITED: "No rate limit holds for the key.",
    DenialReason.QUOTA_EXCEEDED: "No quota holds for the key.",
}


def _details(key: Key, record: Record, question: Question, now: float) -> dict[DenialReason, str]:
    """What each check looks at, in words. Only of what this administrator sees anyway."""
    reason = DenialReason
    state = f"The key is {key.state.name.lower()}."
    return {
        reason.TENANT_DISABLED: f"The tenant {key.tenant_id} is {'enabled' if record.tenant_enabled else 'disabled'}.",
        reason.API_KEY_REVOKED: state,
        reason.API_KEY_DISABLED: state,
        reason.API_KEY_EXPIRED: _expiry(key, now),
        reason.IP_NOT_AUTHORIZED: _address(key, record, question.client_ip),
        reason.TENANT_MISMATCH: _asked(question.tenant_id, f"the key's tenant is {key.tenant_id}", "any tenant"),
        reason.RESOURCE_NOT_IN_SCOPE: _scope(key, question.resource),
        reason.CAPABILITY_NOT_IN_PLAN: _asked(
            question.capability, f"the plan includes {_listed(record.identity.capabilities)}", "no capability"
        ),
        reason.INSUFFICIENT_PERMISSIONS: _asked(
            render_requirement(question.requirement) if question.requirement else "",
            f"the key holds {_listed(record.identity.permissions)}",
            "no permission",
        ),
        reason.ACT_AS_NOT_ALLOWED: _act_as(record, question.act_as),
    }


def _expiry(key: Key, now: float) -> str:
    if key.expired:
        return "The key was expired by an administrator, or its expire_time had passed when it was set."
    if key.expire_time is None:
        return "The key never expires."
    moment = datetime.fromtimestamp(now, UTC)
    return f"The key's expire_time is {key.expire_time:%Y-%m-%d %H:%M:%S}, and it is {moment:%Y-%m-%d %H:%M:%S} UTC."


def _address(key: Key, record: Record, client_ip: str) -> str:
    if record.allowlist is None:
        return "The key may be used from every address."
    if not client_ip:
        return f"No client address was given, and only {_listed(key.ip_allowlist)} may use the key."
    where = "one" if record.allowlist.contains(client_ip) else "none"
    return f"{client_ip} is in {where} of {_listed(key.ip_allowlist)}."


def _scope(key: Key, resource: str) -> str:
    if not key.resources:
        return "The key may be used for every resource of its tenant."
    return _asked(resource, f"the key is for {_listed(key.resources)}", "no resource in particular")


def _act_as(record: Record, act_as: str) -> str:
    if not act_as:
        return f"No user was named; the key acts as {record.identity.user or 'nobody'}."
    return f"{act_as} was named; {'a role' if record.may_act_as else 'no role'} of the key may act as another user."


def _asked(wanted: str, given: str, nothing: str) -> str:
    """A sentence on what was asked for and what there is. nothing: stands for no wish, in lower case."""
    return f"{wanted or nothing.capitalize()} was asked for; {given}."


_SHOWN = 10


def _listed(values: Sequence[str]) -> str:
    shown = ", ".join(values[:_SHOWN]) or "nothing"
    return f"{shown} and {len(values) - _SHOWN} more" if len(values) > _SHOWN else shown
