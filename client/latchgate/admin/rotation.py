"""Rotation: a successor for a key, and whether traffic has moved to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from latchgate.admin.calls import Call, changes, reads
from latchgate.admin.fields import duration_to, put_time
from latchgate.admin.key import Key, key_from
from latchgate.admin.keys import new_request_id
from latchgate.admin.values import Propagation, propagation_from
from latchgate.errors import KeyStringLost
from latchgate.v1 import admin_service_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class RotatedKey:
    """A successor. key_string: its whole credential, told this once; it is in no `repr`. predecessor: the old key."""

    key: Key
    key_string: str = field(repr=False)
    predecessor: Key
    propagation: Propagation


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """How far traffic has moved from a key to its successor.

    …_uses_hour, …_uses_day: decisions about a proven key within the last hour and day. safe_to_revoke: whether the
    predecessor can be revoked unnoticed. explanation: why, or why not, for people.
    """

    predecessor: Key
    successor: Key
    predecessor_uses_hour: int
    predecessor_uses_day: int
    successor_uses_hour: int
    successor_uses_day: int
    safe_to_revoke: bool
    explanation: str


def rotate_key(
    key_id: str, *, grace_period: timedelta, expire_time: datetime | None = None, request_id: str = ""
) -> Call[RotatedKey]:
    """Make a key's successor, alike in all but the secret.

    grace_period: how long the old key stays valid, at most until it expires; zero: it is revoked at once. expire_time:
    the successor's; None: as far from now as the old key's was from its creation, or never. request_id: a UUID that
    makes repeating the call harmless; one is made unless it is given. Raises KeyStringLost, and PreconditionFailed for
    a key that is not active, has expired or has a successor.
    """
    request = pb.RotateKeyRequest(
        key_id=key_id, grace_period=duration_to(grace_period), request_id=request_id or new_request_id()
    )
    put_time(request, "expire_time", expire_time)
    return changes("RotateKey", request, _rotated_key_from, repeatable=True)


def get_rotation(key_id: str) -> Call[Rotation]:
    """How far traffic has moved. key_id: the old key's or the new one's."""
    return reads("GetRotation", pb.GetRotationRequest(key_id=key_id), _rotation_from)


def _rotated_key_from(response: pb.RotateKeyResponse) -> RotatedKey:
    key = key_from(response.key)
    if not response.key_string:
        raise KeyStringLost(key)
    return RotatedKey(
        key=key,
        key_string=response.key_string,
        predecessor=key_from(response.predecessor),
        propagation=propagation_from(response),
    )


def _rotation_from(response: pb.GetRotationResponse) -> Rotation:
    return Rotation(
        predecessor=key_from(response.predecessor),
        successor=key_from(response.successor),
        predecessor_uses_hour=response.predecessor_uses_hour,
        predecessor_uses_day=response.predecessor_uses_day,
        successor_uses_hour=response.successor_uses_hour,
        successor_uses_day=response.successor_uses_day,
        safe_to_revoke=response.safe_to_revoke,
        explanation=response.explanation,
    )
