"""The decision about a proven key: pure, in the order of DenialReason, the same for every caller of Latchgate.

It stands here twice: check by check for whoever explains a decision, and as one function without a call more than it
needs, since every verification makes it. A test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

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
    return question.requirement is None or record.grants.satisfy(question.requirement)


def _may_act_as(record: Record, question: Question, _now: float) -> bool:
    return not question.act_as or question.act_as == record.identity.user or record.may_act_as


CHECKS: Final = (
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


def decide(record: Record, question: Question, now: float) -> DenialReason | None:  # noqa: PLR0911 - see the top
    """The reason of the first check that fails, or None where all pass.

    now: Unix seconds.
    """
    if record.standing is not None:
        return record.standing
    if now >= record.expire_at:
        return DenialReason.API_KEY_EXPIRED
    if record.allowlist is not None and not record.allowlist.contains(question.client_ip):
        return DenialReason.IP_NOT_AUTHORIZED
    tenant_id, resource, capability = question.tenant_id, question.resource, question.capability
    if tenant_id and tenant_id != record.identity.tenant_id:
        return DenialReason.TENANT_MISMATCH
    if resource and record.scope is not None and not record.scope.contains(resource):
        return DenialReason.RESOURCE_NOT_IN_SCOPE
    if capability and capability not in record.capabilities:
        return DenialReason.CAPABILITY_NOT_IN_PLAN
    requirement, act_as = question.requirement, question.act_as
    if requirement is not None and not record.grants.satisfy(requirement):
        return DenialReason.INSUFFICIENT_PERMISSIONS
    if act_as and not record.may_act_as and act_as != record.identity.user:
        return DenialReason.ACT_AS_NOT_ALLOWED
    return None
