"""The file of `keys import`: what a line may hold, and how what is wrong with it is told."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2
from latchgate_server.cli.import_file import COLUMNS, Refused, read_file
from latchgate_server.cli.key_import import BATCH_BYTES, _batches
from latchgate_server.core import bounds
from tests.unit.strategies import ANY_TEXT

NOW = 1_000_000_000.0
DIGEST = hashlib.sha256(b"x").digest()


def read(*lines: str, tenant: str = "") -> tuple[list[tuple[int, pb.ImportedKey]], list[Refused]]:
    entries, refused = read_file([f"{line}\n" for line in lines], tenant, NOW)
    return [(entry.line, entry.key) for entry in entries], refused


def only(*lines: str) -> pb.ImportedKey:
    entries, refused = read(*lines)
    assert (len(entries), refused) == (1, [])
    return entries[0][1]


def refusal(**values: Any) -> Refused:
    entries, refused = read(json.dumps({"sha256": DIGEST.hex(), **values}))
    assert (len(entries), len(refused)) == (0, 1)
    return refused[0]


WHOLE = pb.ImportedKey(
    key=key_pb2.Key(
        key_id="k-1",
        tenant_id="acme",
        display_name="Nightly, export",
        owner="ada",
        role_ids=["reader", "writer"],
        permissions=["orders.read", "stock.*"],
        environment="production",
        tags={"team": "data", "cost": "7"},
        ip_allowlist=key_pb2.IpAllowlist(enabled=True, ranges=["10.0.0.0/8"]),
    ),
    sha256=DIGEST,
)


def test_csv_and_json_say_the_same() -> None:
    header = "key_id,sha256,tenant_id,display_name,owner,role_ids,permissions,environment,tags,ip_ranges"
    row = f'k-1,{DIGEST.hex()},acme,"Nightly, export",ada,reader writer,orders.read stock.*,production,'
    row += "team=data cost=7,10.0.0.0/8"
    values = {
        "key_id": "k-1",
        "sha256": base64.b64encode(DIGEST).decode(),
        "tenant_id": "acme",
        "display_name": "Nightly, export",
        "owner": "ada",
        "role_ids": ["reader", "writer"],
        "permissions": ["orders.read", "stock.*"],
        "environment": "production",
        "tags": {"team": "data", "cost": "7"},
        "ip_ranges": ["10.0.0.0/8"],
        "claims": None,
    }
    assert only(header, row) == only(json.dumps(values)) == WHOLE


def test_times_limits_and_claims_are_written_as_on_the_command_line() -> None:
    key = only(
        json.dumps(
            {
                "argon2": "$argon2id$...",
                "key_id": "x",
                "expire_time": "90d",
                "rotate_by_time": "2027-01-31T12:00:00Z",
                "limits": ["calls=100/60s"],
                "claims": {"site": "berlin"},
            }
        )
    ).key
    assert key.expire_time.seconds == int(NOW) + 90 * 86_400
    assert key.rotate_by_time.ToJsonString() == "2027-01-31T12:00:00Z"
    assert key.limits[0].rate_limit.limit == 100
    assert dict(key.claims) == {"site": "berlin"}


def test_a_tenant_that_is_given_is_for_lines_that_name_none() -> None:
    lines = [json.dumps({"sha256": f"{n:064x}", **({"tenant_id": "own"} if n else {})}) for n in range(2)]
    entries, _ = read(*lines, tenant="given")
    assert [key.key.tenant_id for _, key in entries] == ["given", "own"]


def test_lines_are_counted_as_an_editor_counts_them() -> None:
    entries, refused = read("", "owner,sha256", "", '"a', f'b",{DIGEST.hex()}', "ada,nonsense", "one,two,three")
    # A quoted cell may hold a line break.
    assert [line for line, _ in entries] == [4]
    assert [(one.line, one.column) for one in refused] == [(6, "sha256"), (7, "")]


@pytest.mark.parametrize(
    ("values", "column"),
    [
        ({"sha256": ""}, ""),
        ({"argon2": "$argon2id$"}, ""),
        ({"sha256": "ab" * 31}, "sha256"),
        ({"sha256": "zz" * 32}, "sha256"),
        ({"sha256": 7}, "sha256"),
        ({"owner": ["ada"]}, "owner"),
        ({"owner": "\ud800"}, "owner"),
        ({"role_ids": {"a": 1}}, "role_ids"),
        ({"role_ids": ["a", 1]}, "role_ids"),
        ({"tags": {"a": 1}}, "tags"),
        ({"tags": "a"}, "tags"),
        ({"claims": [1]}, "claims"),
        ({"claims": "{"}, "claims"),
        ({"limits": "calls"}, "limits"),
        ({"expire_time": "soon"}, "expire_time"),
        ({"secret": "x"}, "secret"),
    ],
)
def test_what_is_malformed_is_refused_by_line_and_column(values: dict[str, Any], column: str) -> None:
    told = refusal(**values)
    assert (told.line, told.column) == (1, column)
    assert told.why
    assert "ab" * 31 not in told.why


def test_what_repeats_an_earlier_line_is_refused() -> None:
    row = json.dumps({"sha256": DIGEST.hex()})
    _, refused = read(row, json.dumps({"key_id": "k", "argon2": "x"}), row, json.dumps({"key_id": "k", "argon2": "y"}))
    assert [(one.line, one.column) for one in refused] == [(3, "sha256"), (4, "key_id")]


@pytest.mark.parametrize("lines", [["nonsense,sha256"], ["sha256,sha256"], ["sha256", '"open']])
def test_a_file_that_is_no_good_as_a_whole_ends_the_command(lines: list[str]) -> None:
    with pytest.raises(typer.Exit):
        read(*lines)


@given(st.lists(ANY_TEXT, max_size=5))
def test_no_file_breaks_the_reader(lines: list[str]) -> None:
    try:
        entries, refused = read(*lines)
    except typer.Exit:
        return
    assert not entries or refused is not None


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(COLUMNS), st.recursive(st.none() | st.integers() | ANY_TEXT, st.lists)))
def test_no_object_breaks_the_reader(values: dict[str, Any]) -> None:
    entries, refused = read(json.dumps(values))
    assert len(entries) + len(refused) == 1


def test_batches_are_bounded_by_number_and_size() -> None:
    small = [json.dumps({"sha256": f"{n:064x}"}) for n in range(2_500)]
    entries, _ = read_file(small, "", NOW)
    assert [len(batch) for batch in _batches(entries)] == [bounds.IMPORTED_KEYS, bounds.IMPORTED_KEYS, 500]
    large = [json.dumps({"sha256": f"{n:064x}", "claims": {"x": "y" * 15_000}}) for n in range(400)]
    entries, _ = read_file(large, "", NOW)
    sizes = [sum(entry.key.ByteSize() for entry in batch) for batch in _batches(entries)]
    assert len(sizes) > 1
    assert max(sizes) <= BATCH_BYTES
