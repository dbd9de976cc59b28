"""Requests with a request_id: what of them has to be the same for a call to be a repetition."""

from __future__ import annotations

import copy
import hashlib

from latchgate.v1 import admin_service_pb2
from latchgate_server.core.ports import RepeatableCall
from latchgate_server.transport.fields import Fields

Repeatable = admin_service_pb2.CreateKeyRequest | admin_service_pb2.RotateKeyRequest


def repeatable_call_from(fields: Fields, request: Repeatable) -> RepeatableCall | None:
    """The call that the request's id stands for, or None where it has no id.

    Two calls ask for the same if they are of one method and agree in all but the points in time: `90d` from now is
    another one whenever the same command is given again.
    """
    request_id = fields.uuid("request_id", request.request_id)
    if request_id is None:
        return None
    asked = copy.deepcopy(request)
    asked.ClearField("request_id")
    if isinstance(asked, admin_service_pb2.RotateKeyRequest):
        asked.ClearField("expire_time")
    else:
        asked.key.ClearField("expire_time")
        asked.key.ClearField("rotate_by_time")
    digest = hashlib.sha256(asked.DESCRIPTOR.full_name.encode() + b"\0")
    digest.update(asked.SerializeToString(deterministic=True))
    return RepeatableCall(request_id, digest.digest())
