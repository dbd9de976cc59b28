"""The decision about a proven key: pure, in the order of DenialReason, the same for every caller of Latchgate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from latchgate_server.core.model import DenialReason, KeyState, Question
from latchgate_server.core.record import Record


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `passes` takes the record, the question and the time in Unix seconds."""

    denial_reason: DenialReason
    passes: Callable[[Record, Question, float], bool]


def _tenant_enabled(record: Record, _question: Question, _now: float) -> bool:
    return record.tenant_enabled


def _not_revoked(record: Record, _question: Question, _now: float) -> bool:
    return record.state is not KeyState.REVOKED


def _active(record: Record, _question: Question, _now: float) -> bool:
    return record.state is KeyState.ACTIVE


def _not_expired(record: Record, _question: Question, now: float) -> bool:
    return now < record.expire_at


def _address_allowed(record: Record, question: Question, _now: float) -> bool:
    return record.allowlist is None or record.allowlist.contains(question.client_ip)


def _tenant_matches(record: Record, question: Question, _now: float) -> bool:
    return not question.tenant_id or question.tenant_id == record.identity.tenant_id


def _resource_in_scope(record: Record, question: Question, _now: float) -> bool:
    return record.scope is None or not question.resource or record.scope.contains(question.resource)


def _capability_in_plan(record: Record, question: Question, _now: float) -> bool:
    return not question.capability or question.capability in record.capabilities


def _permissions_sufficient(record: Record, question: Question, _now: float) -> bool:
    return question.requirement is None or question.requirement.satisfied_by(record.grants)


def _may_act_as(record: Record, question: Question, _now: float) -> bool:
    return not question.act_as or question.act_as == record.identity.user or record.may_act_as


CHECKS = (
    Check(DenialReason.TENANT_DISABLED, _tenant_enabled),
    Check(DenialReason.API_KEY_REVOKED, _not_revoked),
    Check(DenialReason.API_KEY_DISABLED, _active),
    Check(DenialReason.API_KEY_EXPIRED, _not_expired),
    Check(DenialReason.IP_NOT_AUTHORIZED, _address_allowed),
    Check(DenialReason.TENANT_MISMATCH, _tenant_matches),
    Check(DenialReason.RESOURCE_NOT_IN_SCOPE, _resource_in_scope),
    Check(DenialReason.CAPABILITY_NOT_IN_PLAN, _capability_in_plan),
    Check(DenialReason.INSUFFICIENT_PERMISSIONS, _permissions_sufficient),
    Check(DenialReason.ACT_AS_NOT_ALLOWED, _may_act_as),
)
"""Every check of a key whose secret is proven, but for the limits, in order."""

_IN_ORDER = tuple((check.passes, check.denial_reason) for check in CHECKS)


def decide(record: Record, question: Question, now: float) -> DenialReason | None:
    """The reason of the first check that fails, or None where all pass.

    now: Unix seconds.
    """
    for passes, denial_reason in _IN_ORDER:
        if not passes(record, question, now):
            return denial_reason
    return None
