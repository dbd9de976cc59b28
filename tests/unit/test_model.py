"""The values of the house: their numbers are the protos', they cannot be changed, and a hash is not shown."""

from __future__ import annotations

import dataclasses
from enum import IntEnum

import pytest
from google.protobuf.descriptor import EnumDescriptor

from latchgate.v1 import decision_pb2, key_pb2
from latchgate_server.core import model
from latchgate_server.core.model import Decision, DenialReason, HashProfile, KeyState, QuotaPeriod, SecretHash

VALUES = [value for value in vars(model).values() if isinstance(value, type) and dataclasses.is_dataclass(value)]


def _numbers(proto: EnumDescriptor, prefix: str) -> dict[str, int]:
    assert all(name.startswith(prefix) for name in proto.values_by_name)
    return {name.removeprefix(prefix): value.number for name, value in proto.values_by_name.items()}


@pytest.mark.parametrize(
    ("mirror", "proto", "prefix"),
    [
        (Decision, decision_pb2.Decision.DESCRIPTOR, "DECISION_"),
        (DenialReason, decision_pb2.DenialReason.DESCRIPTOR, "DENIAL_REASON_"),
    ],
)
def test_names_and_numbers_are_those_of_the_protos(mirror: type[IntEnum], proto: EnumDescriptor, prefix: str) -> None:
    assert {member.name: member.value for member in mirror} == _numbers(proto, prefix)


@pytest.mark.parametrize(
    ("mirror", "proto", "prefix"),
    [
        (KeyState, key_pb2.Key.State.DESCRIPTOR, "STATE_"),
        (QuotaPeriod, key_pb2.Quota.Period.DESCRIPTOR, "PERIOD_"),
    ],
)
def test_what_is_stored_mirrors_the_protos_and_is_never_unspecified(
    mirror: type[IntEnum], proto: EnumDescriptor, prefix: str
) -> None:
    assert {"UNSPECIFIED": 0} | {member.name: member.value for member in mirror} == _numbers(proto, prefix)
    assert 0 not in list(mirror)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value.__name__)
def test_every_value_is_frozen(value: type) -> None:
    assert value.__dataclass_params__.frozen  # type: ignore[attr-defined]  # typeshed does not show it


def test_the_repr_of_a_secret_hash_holds_neither_hash_nor_tag() -> None:
    tag = b"\xde\xad\xbe\xef"
    shown = repr(SecretHash(profile=HashProfile.GENERATED, pepper_id="pepper-1", phc="$argon2id$salt$hash", tag=tag))
    assert "pepper-1" in shown
    assert not any(kept in shown for kept in ["argon2", "salt", "hash'", repr(tag), tag.hex()])
