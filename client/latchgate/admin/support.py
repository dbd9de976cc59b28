"""For the support desk: why a key is denied, and giving a limit back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

from latchgate.admin.calls import Call, changes, reads
from latchgate.admin.values import Propagation, denial_reason_from, propagation_from
from latchgate.results import LimitStatus, Query, Question, limit_status_from
from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import decision_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check. reason: the denial that failing it gives, such as `IP_NOT_AUTHORIZED`. detail: for people."""

    reason: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What `verify` would decide. reason: of the first check that fails; empty where allowed. checks: all, in order."""

    allowed: bool
    reason: str
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitReset:
    """Where a limit stands after it was set back."""

    limit: LimitStatus
    propagation: Propagation


def explain_key(key_id: str, **question: Unpack[Question]) -> Call[Explanation]:
    """How each check would go for a key, taking nothing from its limits. question: as for `verify`."""
    request = pb.ExplainKeyRequest(key_id=key_id, request=Query(key="", **question).to_message())
    return reads("ExplainKey", request, _explanation_from)


def reset_limit(
    name: str, *, key_id: str = "", tenant: str = "", remaining: int | None = None, reason: str = ""
) -> Call[LimitReset]:
    """Set back a limit of a key, or else of a tenant, its own or its plan's.

    name: the limit's. remaining: how much is to be left, from 0; None: the whole limit. reason: for the audit log.
    Raises NotFound where there is no limit of this name, ValueError unless one holder is given.
    """
    if bool(key_id) == bool(tenant):
        raise ValueError("either key_id or tenant is expected")
    request = pb.ResetLimitRequest(name=name, reason=reason)
    if key_id:
        request.key_id = key_id
    else:
        request.tenant_id = tenant
    if remaining is not None:
        request.remaining = remaining
    return changes("ResetLimit", request, _limit_reset_from, repeatable=True)


def _explanation_from(response: pb.ExplainKeyResponse) -> Explanation:
    return Explanation(
        allowed=response.decision == decision_pb2.DECISION_ALLOW,
        reason=denial_reason_from(response.denial_reason),
        checks=tuple(
            Check(reason=denial_reason_from(check.denial_reason), passed=check.passed, detail=check.detail)
            for check in response.checks
        ),
    )


def _limit_reset_from(response: pb.ResetLimitResponse) -> LimitReset:
    return LimitReset(limit=limit_status_from(response.limit), propagation=propagation_from(response))
