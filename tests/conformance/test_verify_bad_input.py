"""VerifyService.Verify under bad input: garbage credentials are denied, malformed requests are refused by the field."""

from __future__ import annotations

import asyncio

import asyncpg
import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latchgate.v1 import decision_pb2
from latchgate.v1.verify_service_pb2 import BatchVerifyRequest, VerifyRequest
from latchgate_server.core import bounds
from latchgate_server.core.key_format import ALPHABET, render_key_id, render_secret
from tests.conformance.house import House
from tests.conformance.wire import code_of, refusal
from tests.support.server import Verify

TRANSPORTS = ("native", "grpcio")
"""Bad input meets a transport before it meets us."""

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
"""All that a protobuf string can hold: everything but lone surrogates."""

KEY_LIKE = st.builds(
    "{}_{}.{}".format,
    st.sampled_from(["lg", "acme_live", "", "LG"]),
    st.text(ALPHABET, min_size=21, max_size=23),
    st.text(ALPHABET, min_size=48, max_size=50),
)
NETWORK = settings(max_examples=150, deadline=None, derandomize=True)


def denial(verify: Verify, key: str) -> str:
    """The reason for which the credential is denied."""
    response = verify(key)
    assert response.decision == decision_pb2.DECISION_DENY
    assert not response.HasField("identity")
    assert response.message
    return decision_pb2.DenialReason.Name(response.denial_reason).removeprefix("DENIAL_REASON_")


@pytest.fixture(scope="module")
def key_string(house: House) -> str:
    """A credential that works."""
    return house.key().key_string


@pytest.fixture(scope="module")
def unknown_key_id(module_database: str) -> str:
    """A key id with the tag that this deployment gives, but of no key. Whoever has read the database can make one."""

    async def tag_key() -> bytes:
        connection = await asyncpg.connect(module_database)
        try:
            key: bytes = await connection.fetchval("SELECT key_id_tag_key FROM deployment")
        finally:
            await connection.close()
        return key

    return render_key_id("lg", bytes(range(16)), asyncio.run(tag_key()))


# Credentials.


@given(TEXT | KEY_LIKE)
@NETWORK
def test_no_credential_that_nobody_issued_gets_further_than_its_own_form(verify: Verify, text: str) -> None:
    assert denial(verify, text) == ("INVALID_API_KEY" if text else "MISSING_API_KEY")


@given(st.data())
@NETWORK
def test_no_variation_of_a_credential_works(verify: Verify, key_string: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(key_string)))
    middle = data.draw(TEXT)
    resume = data.draw(st.integers(cut, len(key_string)))
    text = key_string[:cut] + middle + key_string[resume:]
    if text == key_string:
        assert verify(text).decision == decision_pb2.DECISION_ALLOW
    else:
        assert denial(verify, text) in {"MISSING_API_KEY", "INVALID_API_KEY", "SECRET_REQUIRED", "INVALID_SECRET"}


@pytest.mark.parametrize("is_proven", [False, True])
def test_every_single_symbol_of_a_credential_counts(verify: Verify, house: House, is_proven: bool) -> None:
    # What the stored tag refuses of a key that nobody has used, memory refuses of one whose secret was proven.
    key_string = house.key().key_string
    if is_proven:
        assert verify(key_string).decision == decision_pb2.DECISION_ALLOW
    dot = key_string.index(".")
    for place, symbol in enumerate(key_string):
        altered = key_string[:place] + ("x" if symbol != "x" else "y") + key_string[place + 1 :]
        expected = {"INVALID_SECRET"} if place > dot else {"INVALID_API_KEY"}
        assert denial(verify, altered) in expected, f"at {place}"
    assert verify(key_string).decision == decision_pb2.DECISION_ALLOW


@pytest.mark.parametrize(
    "form",
    [
        "{key} ",
        " {key}",
        "{key}\n",
        "\t{key}",
        "{key}\0",
        "\0",
        "{key}{key}",
        "{key},{key}",
        "{key}.",
        "Bearer {key}",
        "ApiKey {key}",
        '"{key}"',
        ".{key}",
        "..",
        ".",
        "_",
        "_.",
        "lg_",
        "lg_.",
        "{id}..{secret}",
        "{id}%2E{secret}",
        "{id}:{secret}",
        "{secret}",
        ".{secret}",
        "{secret}.{id}",
        "{key}é",
        "\u043bg_{tail}",
        "l\u0261_{tail}",
        "\uff4c\uff47_{tail}",
        "LG_{tail}",
        "\u202e{key}",
        "\U0010ffff" * 300,
        "' OR 1=1 --",
        "$argon2id$v=19$m=1024,t=1,p=1$c2FsdA$aGFzaA",
    ],
)
def test_odd_spellings_and_look_alikes_are_denied(verify: Verify, key_string: str, form: str) -> None:
    key_id, _, secret = key_string.partition(".")
    text = form.format(key=key_string, id=key_id, secret=secret, tail=key_string.removeprefix("lg_"))
    assert text != key_string
    assert denial(verify, text) in {"INVALID_API_KEY", "INVALID_SECRET"}


@pytest.mark.parametrize("symbol", ["a", "\0", "é", ".", "_"])
@pytest.mark.parametrize("length", [bounds.KEY_STRING_LENGTH, bounds.KEY_STRING_LENGTH + 1, 1_000_000])
def test_an_oversized_credential_is_denied(verify: Verify, symbol: str, length: int) -> None:
    assert denial(verify, symbol * length) == "INVALID_API_KEY"


def test_an_unknown_key_id_of_this_deployments_making_is_denied_like_any_other(
    verify: Verify, unknown_key_id: str
) -> None:
    assert denial(verify, unknown_key_id) == "SECRET_REQUIRED"
    assert denial(verify, f"{unknown_key_id}.{render_secret(unknown_key_id, bytes(32))}") == "INVALID_API_KEY"
    assert denial(verify, f"{unknown_key_id}.wrong") == "INVALID_API_KEY"


def test_a_secret_in_perfect_form_that_is_another_is_wrong(verify: Verify, key_string: str) -> None:
    key_id = key_string.partition(".")[0]
    assert denial(verify, f"{key_id}.{render_secret(key_id, bytes(32))}") == "INVALID_SECRET"


# Requests.


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("required_permissions", "a AND"),
        ("required_permissions", "a b"),
        ("required_permissions", "(a"),
        ("required_permissions", "a)"),
        ("required_permissions", "and.or AND OR"),
        ("required_permissions", "orders.*"),
        ("required_permissions", "a\0"),
        ("required_permissions", "\u0430.read"),
        ("required_permissions", " "),
        ("required_permissions", "a" * (bounds.PERMISSION_LENGTH + 1)),
        ("required_permissions", "a OR " * 1_000 + "a"),
        ("required_permissions", "(" * (bounds.REQUIREMENT_DEPTH + 1) + "a" + ")" * (bounds.REQUIREMENT_DEPTH + 1)),
        ("required_permissions", "NOT " * 1_000 + "a"),
        ("required_permissions", "(" * bounds.REQUIREMENT_LENGTH),
        ("required_permissions", "a " + "b" * 4_000),
        ("required_capability", "x" * (bounds.CAPABILITY_LENGTH + 1)),
        ("resource", "x" * (bounds.RESOURCE_LENGTH + 1)),
        ("act_as", "x" * (bounds.USER_LENGTH + 1)),
        ("act_as", "bob\n"),
        ("cost", -1),
        ("cost", -(2**63)),
        ("cost", bounds.COST + 1),
        ("cost", 2**63 - 1),
        ("at_least_revision", -1),
        ("at_least_revision", -(2**63)),
    ],
)
def test_a_malformed_field_is_an_invalid_argument_by_its_name(
    verify: Verify, key_string: str, field: str, value: object
) -> None:
    refused = refusal(lambda: verify(key_string, **{field: value}))
    assert refused.code == grpc.StatusCode.INVALID_ARGUMENT
    assert refused.reason == "INVALID_FIELD"
    assert refused.fields == (field,)
    assert field in refused.message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("required_permissions", "NOT x" + " OR x" * 818),
        ("required_permissions", "NOT " + "a" * bounds.PERMISSION_LENGTH),
        ("required_permissions", "(" * (bounds.REQUIREMENT_DEPTH - 2) + "NOT a" + ")" * (bounds.REQUIREMENT_DEPTH - 2)),
        ("resource", "x" * bounds.RESOURCE_LENGTH),
        ("cost", 0),
        ("cost", bounds.COST),
    ],
)
def test_a_field_at_its_bound_is_taken(verify: Verify, key_string: str, field: str, value: object) -> None:
    assert verify(key_string, **{field: value}).decision == decision_pb2.DECISION_ALLOW


def test_a_malformed_request_is_refused_whatever_its_credential(verify: Verify) -> None:
    for key in ["", "garbage"]:
        assert refusal(verify, key, cost=-1).code == grpc.StatusCode.INVALID_ARGUMENT


def test_a_batch_has_up_to_its_bound_of_requests(verify: Verify) -> None:
    requests = [VerifyRequest(key="garbage")] * (bounds.BATCH_SIZE + 1)
    refused = refusal(lambda: verify.stub.BatchVerify(BatchVerifyRequest(requests=requests), timeout=20))
    assert refused.code == grpc.StatusCode.INVALID_ARGUMENT
    assert refused.fields == ("requests",)
    response = verify.stub.BatchVerify(BatchVerifyRequest(requests=requests[:-1]), timeout=20)
    assert len(response.responses) == bounds.BATCH_SIZE


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(["client_ip", "tenant_id", "required_permissions"], TEXT)))
@NETWORK
def test_whatever_is_asked_the_answer_is_a_decision_or_an_invalid_argument(
    verify: Verify, key_string: str, fields: dict[str, str]
) -> None:
    assert code_of(lambda: verify(key_string, **fields)) in {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}


def test_what_the_end_client_sent_has_no_part_in_the_decision(verify: Verify, key_string: str) -> None:
    strange = {"method": "\0", "host": "é" * 5_000, "path": "x" * 100_000, "user_agent": "\U0010ffff"}
    assert verify(key_string, request=strange).decision == decision_pb2.DECISION_ALLOW


def test_the_server_still_decides_after_all_of_this(verify: Verify, key_string: str) -> None:
    assert verify(key_string).decision == decision_pb2.DECISION_ALLOW
