"""VerifyService's messages and the core's values.

Responses are put together from serialised parts (wire_format.py). What depends on the denial reason or on the record
alone is serialised once and kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NoReturn

from latchgate.v1 import decision_pb2, verify_service_pb2
from latchgate_server.core import bounds
from latchgate_server.core.denials import MESSAGES
from latchgate_server.core.model import Identity, Question, RequestInfo
from latchgate_server.core.permissions import MalformedRequirement, parse_requirement
from latchgate_server.core.record import Record
from latchgate_server.core.verification import Verification
from latchgate_server.transport.convert_admin import time_to
from latchgate_server.transport.convert_limits import charge_part
from latchgate_server.transport.fields import Fields, set_claims
from latchgate_server.transport.wire_format import varint

_Response = verify_service_pb2.VerifyResponse

_ALLOWED: Final = _Response(decision=decision_pb2.DECISION_ALLOW).SerializeToString()
_DENIED: Final = {
    reason: _Response(
        decision=decision_pb2.DECISION_DENY,
        denial_reason=decision_pb2.DenialReason.ValueType(reason),
        message=message,
    ).SerializeToString()
    for reason, message in MESSAGES.items()
}
_STALE: Final = _Response(stale=True).SerializeToString()
UNDECIDED: Final = b""
"""The serialised VerifyResponse without a decision, which stands where a batch has an error."""

# Field 1, length-delimited, of BatchVerifyResponse.
_RESPONSES_TAG: Final = b"\x0a"


def question_from(request: verify_service_pb2.VerifyRequest) -> Question:
    """What a request asks, beside the credential. Raises InvalidRequest.

    A malformed address, tenant, resource or capability is none that a key could match, and so is denied, not refused;
    one that is longer than its bound is refused, as it may matter to no check of this key.
    """
    text, act_as = request.required_permissions, request.act_as
    capability, resource = request.required_capability, request.resource
    try:
        requirement = parse_requirement(text) if text else None
    except MalformedRequirement as error:
        _refuse(request, error)
    if (
        act_as
        or not 0 <= request.cost <= bounds.COST
        or request.at_least_revision < 0
        or len(capability) > bounds.CAPABILITY_LENGTH
        or len(resource) > bounds.RESOURCE_LENGTH
    ):
        _check(request, Fields())
    cost = request.cost if request.HasField("cost") else 1
    # One character more than can match: what is kept of a request must not be as long as its sender likes.
    client_ip, tenant_id = (
        request.client_ip[: bounds.CLIENT_ADDRESS_LENGTH + 1],
        request.tenant_id[: bounds.ID_LENGTH + 1],
    )
    told = _request_info(request.request) if request.HasField("request") else None
    # By position, which is twice as fast as by name.
    return Question(client_ip, tenant_id, requirement, capability, act_as, resource, cost, told)


def _request_info(message: verify_service_pb2.RequestInfo) -> RequestInfo:
    return RequestInfo(
        message.method[: bounds.REQUEST_INFO_LENGTH],
        message.host[: bounds.REQUEST_INFO_LENGTH],
        message.path[: bounds.REQUEST_INFO_LENGTH],
        message.user_agent[: bounds.REQUEST_INFO_LENGTH],
    )


def _refuse(request: verify_service_pb2.VerifyRequest, error: MalformedRequirement) -> NoReturn:
    fields = Fields()
    fields.wrong("required_permissions", str(error))
    _check(request, fields)
    raise AssertionError("a field was wrong")


def _check(request: verify_service_pb2.VerifyRequest, fields: Fields) -> None:
    fields.text("act_as", request.act_as, bounds.USER_LENGTH)
    fields.length("required_capability", request.required_capability, bounds.CAPABILITY_LENGTH)
    fields.length("resource", request.resource, bounds.RESOURCE_LENGTH)
    if not 0 <= request.cost <= bounds.COST:
        fields.wrong("cost", f"0 to {bounds.COST}")
    if request.at_least_revision < 0:
        fields.wrong("at_least_revision", "0 or more")
    fields.check()


def verification_to(verification: Verification) -> bytes:
    """The serialised VerifyResponse that tells of a verification."""
    reason = verification.denial_reason
    response = (_ALLOWED if reason is None else _DENIED[reason]) + _revision_part(verification.revision)
    record = verification.record
    if record is not None:
        response += record.told or _tell(record)
        if verification.user != record.identity.user:
            response += _Response(identity=decision_pb2.Identity(user=verification.user)).SerializeToString()
        if verification.charge.statuses:
            response += charge_part(verification.charge, record.limits.shape)
    if verification.stale:
        response += _STALE
    return response


def batch_to(responses: Sequence[bytes], errors: Mapping[int, verify_service_pb2.BatchVerifyError]) -> bytes:
    """The serialised BatchVerifyResponse. responses: serialised; errors: by their places."""
    parts = [b"".join((_RESPONSES_TAG, varint(len(response)), response)) for response in responses]
    parts.append(verify_service_pb2.BatchVerifyResponse(errors=errors).SerializeToString())
    return b"".join(parts)


@lru_cache(maxsize=64)
def _revision_part(revision: int) -> bytes:
    return _Response(revision=revision).SerializeToString()


def _tell(record: Record) -> bytes:
    """The response's identity, kept with the record, so that it goes with it."""
    told = _Response(identity=identity_to(record.identity)).SerializeToString()
    record.keep_told(told)
    return told


def identity_to(identity: Identity) -> decision_pb2.Identity:
    """The message for who a key speaks for."""
    message = decision_pb2.Identity(
        key_id=identity.key_id,
        tenant_id=identity.tenant_id,
        display_name=identity.display_name,
        owner=identity.owner,
        user=identity.user,
        role_ids=identity.role_ids,
        permissions=identity.permissions,
        capabilities=identity.capabilities,
        environment=identity.environment,
        tags=identity.tags,
        expire_time=time_to(identity.expire_time),
        resources=identity.resources,
    )
    set_claims(message.claims, identity.claims)
    return message
