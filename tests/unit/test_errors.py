"""Errors on the wire: each has its code and its reason, and what has neither tells nothing."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from latchgate.v1 import error_reason_pb2
from latchgate_server.core import bounds, errors
from latchgate_server.core.model import DenialReason, KeyState
from latchgate_server.transport import errors as wire

SAMPLES: list[errors.LatchgateError] = [
    errors.InvalidRequest.of("key.owner", "at most 200 characters"),
    errors.AdminKeyRejected(DenialReason.INVALID_SECRET),
    errors.CallerKeyRejected(DenialReason.MISSING_API_KEY),
    errors.PermissionMissing("latchgate.keys.get"),
    errors.EscalationRefused("orders.read"),
    errors.ResourceNotFound("key", "lg_1"),
    errors.ResourceExists("tenant", "acme"),
    errors.EtagMismatch("key", "lg_1"),
    errors.IllegalTransition(KeyState.REVOKED, "enabled"),
    errors.ResourceInUse("role", "reader"),
    errors.KeyLimitReached(3),
    errors.LastAdministrator(),
    errors.RevisionNotReached(9, 8),
    errors.CannotDecide("a stored hash is malformed"),
    errors.StoreUnavailable("the database cannot be reached"),
    errors.Overloaded("too much at once", retry_after=2.5),
    errors.PepperMissing("pepper 1 is not configured"),
]
ABSTRACT = {errors.LatchgateError, errors._AboutResource}


def every_error(base: type[errors.LatchgateError] = errors.LatchgateError) -> Iterator[type[errors.LatchgateError]]:
    yield base
    for derived in base.__subclasses__():
        yield from every_error(derived)


def test_every_error_of_the_core_has_its_row_and_a_sample_here() -> None:
    raised = set(every_error()) - ABSTRACT
    assert wire._ROWS.keys() == raised
    assert {type(sample) for sample in SAMPLES} == raised


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__
    for error in set(every_error()) - {errors._AboutResource}:
        assert f"{error.__name__} " in errors.__doc__ or f"{error.__name__}\n" in errors.__doc__


def test_every_reason_is_one_of_the_contracts_and_none_is_used_twice() -> None:
    reasons = [row.reason for row in wire._ROWS.values() if row.reason]
    names = {value.name.removeprefix("ERROR_REASON_") for value in error_reason_pb2.ErrorReason.DESCRIPTOR.values}
    assert len(set(reasons)) == len(reasons)
    assert set(reasons) == names - {"UNSPECIFIED"}


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_has_a_code_a_message_and_metadata_that_is_text(error: errors.LatchgateError) -> None:
    assert wire.code_of(error) not in {grpc.StatusCode.OK, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}
    assert str(error)
    row = wire._ROWS[type(error)]
    assert all(row.metadata(error).values())


def test_what_may_be_tried_again_says_after_how_long() -> None:
    for error in SAMPLES:
        details = wire._details(wire._ROWS[type(error)], error)
        retries = [detail for detail in details if detail.type_url.endswith("google.rpc.RetryInfo")]
        assert len(retries) == isinstance(error, errors.CannotDecide)


@pytest.mark.parametrize("error", [ValueError("secret"), KeyError("secret"), errors.LatchgateError("secret")])
def test_any_other_exception_is_internal(error: Exception) -> None:
    assert wire.code_of(error) == grpc.StatusCode.INTERNAL


# How much of a malformed request is told.


def test_of_many_violations_the_first_are_told_and_the_rest_counted() -> None:
    violations = [errors.Violation(f"field[{place}]", "wrong") for place in range(bounds.VIOLATIONS + 3)]
    error = errors.InvalidRequest(violations)
    assert error.violations == tuple(violations[: bounds.VIOLATIONS])
    assert str(error).endswith("; and 3 more")
    assert str(errors.InvalidRequest(violations[:2])) == "field[0]: wrong; field[1]: wrong"


def test_a_missing_permission_is_told_by_its_name_alone_wherever_it_is_missing() -> None:
    error = errors.PermissionMissing("latchgate.plans.create", "latchgate")
    assert error.permission == "latchgate.plans.create"
    assert str(error) == "this needs the permission latchgate.plans.create in the tenant latchgate"
