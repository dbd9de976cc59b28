"""Checks of single fields: what each lets through, what it says otherwise, and that nothing that is sent breaks it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2
from latchgate_server.core import bounds
from latchgate_server.core.errors import InvalidRequest
from latchgate_server.core.permissions import Grants
from latchgate_server.core.resources import ResourceScope
from latchgate_server.transport.convert_admin import duration_to
from latchgate_server.transport.fields import Fields, set_claims

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
"""All that a protobuf string can hold."""
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def wrong(check: Callable[[Fields], object]) -> list[str]:
    """The paths of what is wrong."""
    fields = Fields()
    check(fields)
    try:
        fields.check()
    except InvalidRequest as error:
        return [violation.field for violation in error.violations]
    return []


# Texts and ids.


@given(TEXT, st.integers(0, 10), st.booleans())
def test_text_is_within_its_length_and_without_control_characters(text: str, limit: int, lines: bool) -> None:
    allowed = "\n\t" if lines else ""
    controls = [symbol for symbol in text if (symbol < " " or "\x7f" <= symbol <= "\x9f") and symbol not in allowed]
    told = wrong(lambda fields: fields.text("path", text, limit, lines=lines))
    assert told == ["path"] * ((len(text) > limit) + bool(controls))


@given(TEXT)
def test_no_text_breaks_any_check(text: str) -> None:
    checks: list[Callable[[Fields], object]] = [
        lambda fields: fields.tenant_id("path", text),
        lambda fields: fields.id("path", text),
        lambda fields: fields.limit_name("path", text),
        lambda fields: fields.key_id("path", text),
        lambda fields: fields.uuid("path", text),
        lambda fields: fields.grants("path", [text]),
        lambda fields: fields.resources("path", [text]),
        lambda fields: fields.capabilities("path", [text]),
        lambda fields: fields.role_ids("path", [text]),
        lambda fields: fields.ranges("path", [text]),
        lambda fields: fields.tags("path", {text: text}),
    ]
    for check in checks:
        assert set(wrong(check)) <= {"path", "path[0]"}


@given(TEXT)
def test_what_is_let_through_as_a_grant_or_resource_is_one_that_the_core_can_use(text: str) -> None:
    if not wrong(lambda fields: fields.grants("path", [text])):
        assert Grants([text]).covers(text)
    if not wrong(lambda fields: fields.resources("path", [text])):
        assert ResourceScope([text]).covers(text)


@pytest.mark.parametrize("value", ["lg_7RiJxkEgOGusQGwpIaSBpz", "x", "other system:4711", "x" * bounds.KEY_ID_LENGTH])
def test_a_key_id_is_any_text_that_could_be_one(value: str) -> None:
    assert wrong(lambda fields: fields.key_id("key_id", value)) == []


@pytest.mark.parametrize("value", ["", "lg_1.secret", ".", "é", "a\0", "a\n", "x" * (bounds.KEY_ID_LENGTH + 1)])
def test_a_whole_credential_is_no_key_id(value: str) -> None:
    fields = Fields()
    fields.key_id("key_id", value)
    with pytest.raises(InvalidRequest) as caught:
        fields.check()
    assert value == "" or value not in str(caught.value).removeprefix("key_id: a key id")


@pytest.mark.parametrize("value", ["6a0f2a52-0f5c-4f0e-9a57-1f6d3c1f9a10", "6A0F2A520F5C4F0E9A571F6D3C1F9A10"])
def test_a_uuid_may_be_written_in_either_case_and_with_or_without_hyphens(value: str) -> None:
    assert str(Fields().uuid("path", value)) == "6a0f2a52-0f5c-4f0e-9a57-1f6d3c1f9a10"


def test_no_uuid_is_none() -> None:
    assert Fields().uuid("path", "") is None


# Lists and maps.


def test_each_entry_is_told_by_its_place_and_kept_once() -> None:
    assert wrong(lambda fields: fields.grants("path", ["a", "b c", "d", "!"])) == ["path[1]", "path[3]"]
    assert Fields().grants("path", ["b", "a", "b"]) == ("b", "a")


def test_of_a_list_that_is_too_long_no_entry_is_looked_at_beyond_the_bound() -> None:
    told = wrong(lambda fields: fields.grants("path", ["a"] * bounds.PERMISSIONS + ["!"] * 9))
    assert told == ["path"]


def test_tags_come_in_one_order_however_they_were_sent() -> None:
    """A map has no order of its own on the wire, and a page token is bound to its filter as text."""
    assert list(Fields().tags("path", {"b": "1", "a": "2"}).items()) == [("a", "2"), ("b", "1")]


def test_what_is_wrong_with_a_tag_is_told_without_its_text() -> None:
    fields = Fields()
    fields.tags("key.tags", {"": "x", "secret" * 20: "y\0"})
    with pytest.raises(InvalidRequest) as caught:
        fields.check()
    assert {violation.field for violation in caught.value.violations} == {"key.tags"}
    assert "secret" not in str(caught.value)


# Numbers, times, durations.


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1))
def test_a_time_is_a_datetime_in_utc_or_wrong_and_never_an_exception(seconds: int, nanos: int) -> None:
    fields = Fields()
    time = fields.time("path", Timestamp(seconds=seconds, nanos=nanos))
    if time is not None:
        assert time.tzinfo is UTC
        fields.check()
    else:
        with pytest.raises(InvalidRequest):
            fields.check()


def test_a_time_keeps_its_microseconds() -> None:
    moment = datetime(2030, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
    message = Timestamp()
    message.FromDatetime(moment)
    assert Fields().time("path", message) == moment


@given(st.integers(-(2**40), 2**40), st.integers(-(2**31), 2**31 - 1))
def test_a_duration_is_a_microsecond_or_more_and_up_to_its_limit(seconds: int, nanos: int) -> None:
    duration = Duration(seconds=seconds, nanos=nanos)
    total = seconds * 10**9 + nanos
    assert (wrong(lambda fields: fields.seconds("path", duration, 3_600.0)) == []) == (1_000 <= total <= 3_600 * 10**9)


@pytest.mark.parametrize("nanos", [1_000, 1_499, 1_501, 999_999_999])
def test_a_duration_is_told_back_as_it_is_kept(nanos: int) -> None:
    kept = Fields().seconds("path", Duration(nanos=nanos), 3_600.0)
    assert Fields().seconds("path", duration_to(kept), 3_600.0) == kept > 0


# Claims.


def wrong_claims(claims: Struct) -> bool:
    return wrong(lambda fields: fields.claims("path", claims)) == ["path"]


@given(st.dictionaries(TEXT, JSON, max_size=4))
def test_claims_are_the_json_that_was_sent_or_wrong(values: dict[str, Any]) -> None:
    message = ParseDict(values, Struct())
    fields = Fields()
    claims = fields.claims("path", message)
    if "\\u0000" in json.dumps(values):
        with pytest.raises(InvalidRequest):
            fields.check()
        return
    fields.check()
    assert claims == values
    again = Struct()
    set_claims(again, claims)
    assert MessageToDict(again) == MessageToDict(message)


@given(st.floats())
def test_a_claim_is_a_finite_number_and_a_whole_one_is_an_integer(number: float) -> None:
    message = Struct(fields={"x": Value(number_value=number)})
    told = wrong(lambda fields: fields.claims("path", message))
    assert (told == []) == math.isfinite(number)
    if math.isfinite(number):
        claim = Fields().claims("path", message)["x"]
        assert claim == number
        assert isinstance(claim, int) == (number.is_integer() and abs(number) < 2**53)


@pytest.mark.parametrize("kind", ["list", "object"])
def test_claims_nest_to_their_bound_and_no_deeper(kind: str) -> None:
    def nested(depth: int) -> Struct:
        value = Value(bool_value=True)
        for _ in range(depth - 1):
            value = (
                Value(list_value=ListValue(values=[value]))
                if kind == "list"
                else Value(struct_value=Struct(fields={"x": value}))
            )
        return Struct(fields={"x": value})

    assert not wrong_claims(nested(bounds.CLAIMS_DEPTH))
    for deeper in (bounds.CLAIMS_DEPTH + 1, 25):
        assert wrong_claims(nested(deeper))


def test_a_claim_of_no_kind_is_null() -> None:
    assert Fields().claims("path", Struct(fields={"x": Value()})) == {"x": None}


def test_the_size_of_claims_is_counted_in_bytes() -> None:
    for symbol, width in (("a", 1), ("é", 2), ("\U0001f511", 4)):
        room = (bounds.CLAIMS_BYTES - len('{"x": ""}')) // width
        assert not wrong_claims(ParseDict({"x": symbol * room}, Struct()))
        assert wrong_claims(ParseDict({"x": symbol * room + "aaaa"}, Struct()))


def test_no_claims_leave_a_message_unset() -> None:
    key = key_pb2.Key()
    set_claims(key.claims, {})
    assert not key.HasField("claims")


# Update masks.

CHANGEABLE = ["display_name", "owner", "ip_allowlist", "ip_allowlist.enabled"]


def paths(request: pb.UpdateKeyRequest) -> list[str]:
    fields = Fields()
    found = list(fields.paths(request, request.key, CHANGEABLE))
    fields.check()
    return found


def test_without_a_mask_an_update_names_what_is_set_and_can_be_changed() -> None:
    key = key_pb2.Key(key_id="x", owner="ada", etag="1", state=key_pb2.Key.STATE_ACTIVE)
    assert paths(pb.UpdateKeyRequest(key=key)) == ["owner"]
    assert paths(pb.UpdateKeyRequest(key=key, update_mask=FieldMask())) == []


def test_a_mask_names_what_it_says_and_a_star_names_everything() -> None:
    assert paths(pb.UpdateKeyRequest(update_mask=FieldMask(paths=["owner", "ip_allowlist.enabled"]))) == [
        "owner",
        "ip_allowlist.enabled",
    ]
    assert paths(pb.UpdateKeyRequest(update_mask=FieldMask(paths=["owner", "*"]))) == CHANGEABLE


@given(TEXT)
def test_any_other_path_is_wrong_and_quoted_in_part(path: str) -> None:
    request = pb.UpdateKeyRequest(update_mask=FieldMask(paths=[path * 50]))
    if path * 50 in (*CHANGEABLE, "*"):
        return
    with pytest.raises(InvalidRequest) as caught:
        paths(request)
    assert [violation.field for violation in caught.value.violations] == ["update_mask"]
    assert len(str(caught.value)) < 100 + 10 * bounds.QUOTED_LENGTH
