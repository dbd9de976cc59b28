"""What is typed on the command line becomes what was meant, or is refused with exit code 2."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from latchgate.v1 import key_pb2
from latchgate_server.cli import text
from latchgate_server.cli.key_fields import CLEARED, Clearable, Grants, Restrictions, Words, key_from
from latchgate_server.cli.key_states import _public
from latchgate_server.cli.parsing import claims_from, duration_from, limit_from, tags_from, time_from

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC).timestamp()

NOTHING_NAMED = Words(None, None, None, None, None, None)
NOTHING_GRANTED = Grants(None, None, None, None)
NOTHING_RESTRICTED = Restrictions(None, None, None, None, None)


@pytest.mark.parametrize(
    ("typed", "seconds"),
    [("500ms", 0.5), ("60s", 60), ("1.5h", 5_400), ("5m", 300), ("90d", 7_776_000), ("2w", 1_209_600), ("0s", 0)],
)
def test_durations_have_a_number_and_a_unit(typed: str, seconds: float) -> None:
    assert duration_from(typed, "--x").ToMicroseconds() == seconds * 1_000_000


@pytest.mark.parametrize(
    "typed", ["", "60", "s", "60 s", "-5m", "1e3s", "5M", "1h30m", "\N{ARABIC-INDIC DIGIT ONE}d", "5m\n"]
)
def test_other_durations_are_refused(typed: str) -> None:
    with pytest.raises(typer.BadParameter) as refused:
        duration_from(typed, "--x")
    assert refused.value.exit_code == 2
    assert refused.value.param_hint == "--x"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("2027-01-31T12:00:00Z", "2027-01-31T12:00:00Z"),
        ("2027-01-31T12:00:00.25+02:00", "2027-01-31T10:00:00.250Z"),
        ("2020-01-01 00:00:00Z", "2020-01-01T00:00:00Z"),
        ("90d", "2026-09-29T12:00:00Z"),
        ("0s", "2026-07-01T12:00:00Z"),
    ],
)
def test_times_are_rfc_3339_or_from_now_on(typed: str, meant: str) -> None:
    assert time_from(typed, "--x", NOW).ToJsonString() == meant


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "tomorrow",
        "2027-01-31",
        "2027-01-31T12:00:00",
        "2027-13-01T00:00:00Z",
        "999999999w",
        "0001-01-01T00:00:00+01:00",
    ],
)
def test_other_times_are_refused(typed: str) -> None:
    with pytest.raises(typer.BadParameter):
        time_from(typed, "--x", NOW)


@given(st.text(max_size=40))
def test_no_text_makes_a_time_or_a_limit_fail_otherwise(typed: str) -> None:
    parsers: list[Callable[[], object]] = [
        lambda: time_from(typed, "--x", NOW),
        lambda: limit_from(typed, "--x"),
        lambda: claims_from(typed),
        lambda: tags_from([typed]),
    ]
    for parse in parsers:
        try:
            parse()
        except typer.BadParameter:
            continue


def test_rate_limits_and_quotas() -> None:
    rate = limit_from("calls=100/60s", "--x")
    assert (rate.name, rate.rate_limit.limit, rate.rate_limit.period.seconds, rate.rate_limit.burst) == (
        "calls",
        100,
        60,
        0,
    )
    assert limit_from("calls=100/1m:250", "--x").rate_limit.burst == 250
    quota = limit_from("prepaid=1000/lifetime", "--x")
    assert (quota.name, quota.quota.limit, quota.quota.period) == ("prepaid", 1000, key_pb2.Quota.PERIOD_LIFETIME)


@pytest.mark.parametrize(
    "typed",
    ["", "calls", "calls=", "=100/60s", "calls=100", "calls=x/60s", "calls=1/year", "calls=1/day:5", "calls=-1/60s"],
)
def test_other_limits_are_refused(typed: str) -> None:
    with pytest.raises(typer.BadParameter):
        limit_from(typed, "--x")


RATES = st.builds(
    lambda name, limit, micros, burst: f"{name}={limit}/{micros / 1000:.3f}ms:{burst}",
    st.sampled_from(["calls", "a.b", "x-1"]),
    st.integers(0, 2**53),
    st.integers(1, 366 * 86_400_000_000),
    st.integers(1, 2**53),
)
QUOTAS = st.builds(
    lambda limit, period: f"prepaid={limit}/{period}", st.integers(0, 2**53), st.sampled_from(sorted(text.PERIODS))
)


@given(RATES | QUOTAS)
def test_a_limit_reads_as_it_can_be_typed(typed: str) -> None:
    limit = limit_from(typed, "--x")

    assert limit_from(text.limit(limit), "--x") == limit


def test_tags() -> None:
    assert tags_from(["region=eu", "note=a=b", "empty="]) == {"region": "eu", "note": "a=b", "empty": ""}


@pytest.mark.parametrize("typed", [["region"], ["=eu"], ["region=eu", "region=us"]])
def test_other_tags_are_refused(typed: list[str]) -> None:
    with pytest.raises(typer.BadParameter):
        tags_from(typed)


def test_claims_are_an_object() -> None:
    claims = claims_from('{"region": "eu", "max": 5, "deep": {"list": [1.5, null, true]}}')

    assert text.claims(claims) == '{"deep": {"list": [1.5, null, true]}, "max": 5, "region": "eu"}'


@pytest.mark.parametrize(
    "typed", ["", "{", "[]", '"x"', "null", '{"a": NaN}', '{"a": 9007199254740993}', '{"a": "\\ud800"}', "[" * 100_000]
)
def test_other_claims_are_refused(typed: str) -> None:
    with pytest.raises(typer.BadParameter):
        claims_from(typed)


def test_every_option_sets_its_own_field_and_nothing_else() -> None:
    words = Words("a name", "a description", "an owner", "a user", "production", ["k=v"])
    grants = Grants(["reader"], ["orders.*"], ["sites/*"], '{"a": "b"}')
    restrictions = Restrictions(["10.0.0.0/8"], None, "1d", "2d", ["calls=1/1s"])

    key, paths = key_from(words, grants, restrictions, NOW)

    assert key == key_pb2.Key(
        display_name="a name",
        description="a description",
        owner="an owner",
        default_user="a user",
        environment="production",
        tags={"k": "v"},
        role_ids=["reader"],
        permissions=["orders.*"],
        resources=["sites/*"],
        claims=claims_from('{"a": "b"}'),
        ip_allowlist=key_pb2.IpAllowlist(enabled=True, ranges=["10.0.0.0/8"]),
        expire_time=time_from("1d", "", NOW),
        rotate_by_time=time_from("2d", "", NOW),
        limits=[limit_from("calls=1/1s", "")],
    )
    assert sorted(paths) == sorted(CLEARED.values())
    assert set(CLEARED) == set(Clearable)


def test_options_that_were_not_given_name_no_field() -> None:
    assert key_from(NOTHING_NAMED, NOTHING_GRANTED, NOTHING_RESTRICTED, NOW) == (key_pb2.Key(), [])


def test_an_empty_value_is_one_that_was_given() -> None:
    key, paths = key_from(Words("", None, None, None, None, None), NOTHING_GRANTED, NOTHING_RESTRICTED, NOW)

    assert (key.display_name, paths) == ("", ["display_name"])


@pytest.mark.parametrize(
    ("ranges", "switch", "enabled", "paths"),
    [
        (["10.0.0.0/8"], None, True, ["ip_allowlist"]),
        (["10.0.0.0/8"], True, True, ["ip_allowlist"]),
        (["10.0.0.0/8"], False, False, ["ip_allowlist"]),
        (None, True, True, ["ip_allowlist.enabled"]),
        (None, False, False, ["ip_allowlist.enabled"]),
    ],
)
def test_addresses_apply_unless_they_are_switched_off(
    ranges: list[str] | None, switch: bool | None, enabled: bool, paths: list[str]
) -> None:
    restrictions = Restrictions(ranges, switch, None, None, None)

    key, named = key_from(NOTHING_NAMED, NOTHING_GRANTED, restrictions, NOW)

    assert (key.ip_allowlist.enabled, named) == (enabled, paths)


def test_a_key_string_in_place_of_a_key_id_is_refused_and_not_repeated() -> None:
    assert _public("lg_0123456789012345678901") == "lg_0123456789012345678901"
    with pytest.raises(typer.BadParameter) as refused:
        _public("lg_0123456789012345678901.verysecret")
    assert "verysecret" not in refused.value.format_message()
