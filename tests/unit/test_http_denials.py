"""What an HTTP client is told of each denial, and what of it can be changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from latchgate_server.core import bounds
from latchgate_server.core.denials import MESSAGES
from latchgate_server.core.http_denials import HttpDenial, HttpDenials, MalformedDenials
from latchgate_server.core.model import DenialReason

# As the contract has it.
TABLE = {
    "MISSING_API_KEY": (400, "MISSING_API_KEY"),
    "INVALID_API_KEY": (401, "INVALID_API_KEY"),
    "SECRET_REQUIRED": (401, "SECRET_REQUIRED"),
    "INVALID_SECRET": (401, "INVALID_SECRET"),
    "TENANT_DISABLED": (401, "COMPANY_API_DISABLED"),
    "API_KEY_REVOKED": (401, "API_KEY_DISABLED"),
    "API_KEY_DISABLED": (401, "API_KEY_DISABLED"),
    "API_KEY_EXPIRED": (401, "API_KEY_EXPIRED"),
    "IP_NOT_AUTHORIZED": (403, "IP_NOT_AUTHORIZED"),
    "TENANT_MISMATCH": (404, "NOT_FOUND"),
    "RESOURCE_NOT_IN_SCOPE": (404, "NOT_FOUND"),
    "CAPABILITY_NOT_IN_PLAN": (403, "CAPABILITY_NOT_IN_PLAN"),
    "INSUFFICIENT_PERMISSIONS": (403, "INSUFFICIENT_PERMISSIONS"),
    "ACT_AS_NOT_ALLOWED": (403, "ACT_AS_NOT_ALLOWED"),
    "RATE_LIMITED": (429, "RATE_LIMITED"),
    "QUOTA_EXCEEDED": (429, "QUOTA_EXCEEDED"),
}


def test_the_table_is_the_contracts() -> None:
    denials = HttpDenials({})
    told = {reason.name: (denials.of(reason).status, denials.of(reason).code) for reason in DenialReason if reason}
    assert told == TABLE
    assert (denials.unavailable.status, denials.unavailable.code) == (503, "UNAVAILABLE")
    assert (denials.ambiguous.status, denials.ambiguous.code) == (400, "INVALID_API_KEY")


def test_what_is_changed_is_told_and_the_rest_stays() -> None:
    denials = HttpDenials(
        {
            "code_field": "error",
            "message_field": "détail",
            "TENANT_DISABLED": {"status": 402, "code": "pay"},
            "UNAVAILABLE": {"message": "Später"},
        }
    )
    assert denials.of(DenialReason.TENANT_DISABLED) == HttpDenial(402, "pay", MESSAGES[DenialReason.TENANT_DISABLED])
    assert denials.of(DenialReason.API_KEY_EXPIRED) == HttpDenials({}).of(DenialReason.API_KEY_EXPIRED)
    assert json.loads(denials.body(denials.unavailable)) == {"error": "UNAVAILABLE", "détail": "Später"}


def test_uniform_denials_tell_of_every_401_alike_and_of_the_rest_as_ever() -> None:
    plain, uniform = HttpDenials({}), HttpDenials({}, uniform=True)
    for reason in MESSAGES:
        expected = plain.of(DenialReason.INVALID_API_KEY) if plain.of(reason).status == 401 else plain.of(reason)
        assert uniform.of(reason) == expected


def test_a_client_with_several_keys_is_told_what_the_operator_calls_an_invalid_one() -> None:
    assert HttpDenials({"INVALID_API_KEY": {"code": "bad"}}).ambiguous.code == "bad"


@pytest.mark.parametrize(
    "table",
    [
        {"API_KEY_LOST": {"status": 401}},
        {"UNSPECIFIED": {"status": 401}},
        {"API_KEY_EXPIRED": 401},
        {"API_KEY_EXPIRED": {"status": 200}},
        {"API_KEY_EXPIRED": {"status": 302}},
        {"API_KEY_EXPIRED": {"status": 499}},
        {"API_KEY_EXPIRED": {"status": 600}},
        {"API_KEY_EXPIRED": {"status": "401"}},
        {"API_KEY_EXPIRED": {"status": True}},
        {"API_KEY_EXPIRED": {"reason": "x"}},
        {"API_KEY_EXPIRED": {"code": ""}},
        {"API_KEY_EXPIRED": {"code": "a\r\nb"}},
        {"API_KEY_EXPIRED": {"code": "x" * (bounds.DENIAL_CODE_LENGTH + 1)}},
        {"API_KEY_EXPIRED": {"message": "x" * (bounds.DENIAL_MESSAGE_LENGTH + 1)}},
        {"API_KEY_EXPIRED": {"message": 7}},
        {"code_field": "x", "message_field": "x"},
        {"code_field": ""},
        {"code_field": {"status": 401}},
    ],
)
def test_a_malformed_table_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(MalformedDenials):
        HttpDenials(table)
