"""What client commands print: fitted and coloured on a terminal; elsewhere whole and plain."""

from __future__ import annotations

import io
import json
import re
from contextlib import redirect_stdout

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from latchgate.v1 import admin_service_pb2, decision_pb2, key_pb2
from latchgate_server.cli import text
from latchgate_server.cli.failures import tell
from latchgate_server.cli.key_views import COLUMNS, details, row
from latchgate_server.cli.output import (
    Column,
    Format,
    fitted,
    print_change,
    print_details,
    print_json,
    print_list,
    print_page,
)
from latchgate_server.cli.refusals import typed

NOW = 1_800_000_000
KEY_ID = "lg_0123456789012345678901"
SECRET = "V9cV9cV9cV9cV9cV9cV9cV9cV9cV9cV9cV9cV9cV9cV9cV9cV"
ESCAPE = "\x1b"


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 80 columns that can colour, for `redirect_stdout`."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def lines(stream: Terminal) -> list[str]:
    """What a terminal shows, without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()).splitlines()


def a_key(**fields: object) -> key_pb2.Key:
    key = key_pb2.Key(
        key_id=KEY_ID, tenant_id="acme", state=key_pb2.Key.STATE_ACTIVE, create_time=Timestamp(seconds=NOW - 7_200)
    )
    key.MergeFrom(key_pb2.Key(**fields))  # type: ignore[arg-type]  # whatever a test gives
    return key


def test_a_list_fits_the_terminal_and_keeps_what_is_copied(terminal: Terminal) -> None:
    key = a_key(display_name="a long name " * 20, role_ids=["reader", "writer", "accountant"])

    with redirect_stdout(terminal):
        print_list(COLUMNS, [row(key, NOW)])

    title, line = lines(terminal)
    assert max(len(title), len(line)) <= 80
    assert KEY_ID in line
    assert "2h ago" in line
    assert line.count("…") == 2


def test_a_list_is_not_cut_where_nobody_reads_along(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a long name " * 40 + "end"

    print_list(COLUMNS, [row(a_key(display_name=name), NOW)])

    title, line = capsys.readouterr().out.splitlines()
    assert name in line
    assert title.split("  ")[0] == "KEY ID"
    assert not title.endswith(" ")
    assert not line.endswith(" ")


@given(
    st.lists(st.tuples(st.integers(0, 60), st.booleans()), min_size=1, max_size=8),
    st.integers(10, 200),
)
def test_widths_fit_wherever_they_can(columns: list[tuple[int, bool]], room: int) -> None:
    widths = [width for width, _ in columns]
    may_shrink = [may for _, may in columns]

    fitting = fitted(widths, may_shrink, room)

    assert all(new == old for new, old, may in zip(fitting, widths, may_shrink, strict=True) if not may)
    assert all(min(old, 4) <= new <= old for new, old in zip(fitting, widths, strict=True))
    gaps = 2 * (len(widths) - 1)
    if sum(fitting) + gaps > room:
        assert all(new <= 4 for new, may in zip(fitting, may_shrink, strict=True) if may)
    elif sum(widths) + gaps > room:
        assert sum(fitting) + gaps == room


def test_colours_are_for_terminals(terminal: Terminal) -> None:
    with redirect_stdout(terminal):
        print_details([("state", "revoked")])

    assert f"{ESCAPE}[31m" in terminal.getvalue()


def test_elsewhere_there_are_no_colours(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")

    print_details([("state", "revoked")])

    assert capsys.readouterr().out == "state  revoked\n"


def test_no_color_is_respected(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    with redirect_stdout(terminal):
        print_details([("state", "revoked")])

    assert "revoked" in terminal.getvalue()
    assert "[31m" not in terminal.getvalue()


def test_values_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_list([Column("name")], [["[red]x[/red] :smile: https://example.com"]])

    assert capsys.readouterr().out.splitlines()[1] == "[red]x[/red] :smile: https://example.com"


def test_a_terminal_obeys_no_value(terminal: Terminal) -> None:
    with redirect_stdout(terminal):
        print_details([("name", f"a{ESCAPE}]0;title\x07b\N{RIGHT-TO-LEFT OVERRIDE}")])

    assert lines(terminal)[0].rstrip() == r"name  a\x1b]0;title\x07b\u202e"


def test_details_leave_out_what_is_empty_and_keep_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_details([("name", "x"), ("owner", ""), ("description", "one\ntwo")])

    assert capsys.readouterr().out.splitlines() == ["name         x", "description  one", "             two"]


def test_json_has_every_field_by_its_own_name_in_a_fixed_order(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(admin_service_pb2.ListKeysResponse(keys=[a_key(role_ids=["reader"])]))

    written = json.loads(capsys.readouterr().out)
    (key,) = written["keys"]
    assert list(written) == ["keys", "next_page_token"]
    assert list(key) == sorted(key)
    # What has no presence is always there; what has, where it is set.
    always = {field.name for field in key_pb2.Key.DESCRIPTOR.fields if not field.has_presence}
    assert set(key) == always | {"create_time"}
    assert key["state"] == "STATE_ACTIVE"
    assert key["create_time"] == "2027-01-15T06:00:00Z"


def test_a_change_tells_on_standard_error_how_far_it_has_travelled(capsys: pytest.CaptureFixture[str]) -> None:
    propagation = admin_service_pb2.Propagation(
        revision=17, replicas_confirmed=2, leases_expired=1, waited=Duration(seconds=3, nanos=300_000_000)
    )
    response = admin_service_pb2.DeleteKeyResponse(propagation=propagation)

    print_change(Format.TABLE, response, [("deleted", KEY_ID)], propagation)
    told = capsys.readouterr()
    print_change(Format.JSON, response, [("deleted", KEY_ID)], propagation)
    written = capsys.readouterr()

    assert told.out == f"deleted  {KEY_ID}\n"
    assert told.err == "revision 17, confirmed by replicas: 2, leases expired: 1, waited 3300ms\n"
    assert json.loads(written.out)["propagation"]["revision"] == "17"
    assert written.err == ""


def test_a_list_that_goes_on_says_how(capsys: pytest.CaptureFixture[str]) -> None:
    print_page(Format.TABLE, admin_service_pb2.ListTenantsResponse(), [Column("tenant")], [["acme"]], "dG9rZW4=")

    assert capsys.readouterr().err == "there are more: --page-token dG9rZW4=\n"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0s ago"),
        (-59, "59s ago"),
        (-60, "1m ago"),
        (-86_399, "24h ago"),
        (-604_800, "7d ago"),
        (86_400 * 90, "in 90d"),
    ],
)
def test_distances_in_time(seconds: int, told: str) -> None:
    assert text.distance(Timestamp(seconds=NOW + seconds), NOW) == told


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "active"),
        ({"expired": True}, "expired"),
        ({"state": key_pb2.Key.STATE_DISABLED}, "disabled"),
        ({"state": key_pb2.Key.STATE_DISABLED, "expired": True}, "disabled, expired"),
        ({"state": key_pb2.Key.STATE_REVOKED, "expired": True}, "revoked"),
    ],
)
def test_states_of_keys(fields: dict[str, object], told: str) -> None:
    assert text.state(a_key(**fields)) == told


def test_an_allowlist_that_does_not_apply_says_so() -> None:
    assert text.allowlist(key_pb2.IpAllowlist(enabled=True, ranges=["10.0.0.0/8"])) == "10.0.0.0/8"
    assert text.allowlist(key_pb2.IpAllowlist(ranges=["10.0.0.0/8"])) == "10.0.0.0/8 (switched off)"
    assert text.allowlist(key_pb2.IpAllowlist(enabled=True)) == "on, but empty: any address"
    assert text.allowlist(key_pb2.IpAllowlist()) == ""


def test_a_reason_of_a_newer_server_is_its_number() -> None:
    assert text.reason(decision_pb2.DENIAL_REASON_INVALID_SECRET) == "INVALID_SECRET"
    assert text.reason(decision_pb2.DenialReason.ValueType(99)) == "99"


def test_details_of_a_key_show_each_of_its_fields() -> None:
    """A field that is added to Key is either shown or named here."""
    not_shown = {"expired"}  # part of the state
    names = [field.name for field in key_pb2.Key.DESCRIPTOR.fields if field.name not in not_shown]
    empty = details(a_key(), NOW)

    for name in names:
        key = a_key()
        field = key_pb2.Key.DESCRIPTOR.fields_by_name[name]
        _fill(key, field.name)
        assert details(key, NOW) != empty, name


def _fill(key: key_pb2.Key, name: str) -> None:
    """Give a field another value than `a_key` has."""
    other = key_pb2.Key(
        key_id="other",
        tenant_id="other",
        display_name="other",
        description="other",
        owner="other",
        default_user="other",
        role_ids=["other"],
        permissions=["other"],
        environment="other",
        tags={"other": "x"},
        expire_time=Timestamp(seconds=1),
        rotate_by_time=Timestamp(seconds=1),
        limits=[key_pb2.Limit(name="other")],
        state=key_pb2.Key.STATE_DISABLED,
        create_time=Timestamp(seconds=1),
        created_by="other",
        update_time=Timestamp(seconds=1),
        revoke_time=Timestamp(seconds=1),
        last_use=key_pb2.LastUse(client_ip="192.0.2.1"),
        predecessor_key_id="other",
        successor_key_id="other",
        etag="other",
        resources=["other"],
        ip_allowlist=key_pb2.IpAllowlist(ranges=["192.0.2.1"]),
    )
    other.claims.update({"other": True})
    if name == "revocation_reason":
        key.revoke_time.seconds = 1
        key.revocation_reason = "other"
        return
    part = key_pb2.Key()
    part.CopyFrom(other)
    for field, _ in other.ListFields():
        if field.name != name:
            part.ClearField(field.name)  # type: ignore[arg-type]  # a field's name
    assert part.ListFields(), name
    key.MergeFrom(part)


def test_no_error_shows_the_secret_of_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    tell(f"No such command '{KEY_ID}.{SECRET}'.\nsecond {ESCAPE}line")

    assert capsys.readouterr().err == (f"latchgate: No such command '{KEY_ID}.…'.\nlatchgate: second \\x1bline\n")


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("key.display_name", "--name"),
        ("tenant.tenant_id", "the tenant's id"),
        ("key.tenant_id", "--tenant"),
        ("key.permissions[0]", "--permission 1"),
        ("key.ip_allowlist.ranges[2]", "--ip 3"),
        ("plan.key_limits[1].rate_limit.period", "--key-limit 2 (period)"),
        ("key.limits[0].name", "--key-limit 1 (name)"),
        ("tenant.limits", "--tenant-limit"),
        ("filter.expires_before", "--expires-before"),
        ("reason", "--reason"),
        ("update_mask", "update_mask"),
        ("something.new[3]", "something.new[3]"),
    ],
)
def test_fields_are_told_as_they_were_typed(field: str, told: str) -> None:
    assert typed(field) == told
