"""`latchgate keys import` as an administrator uses it, with files and pipes, on a terminal and off it."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from tests.e2e.commands import DENIED, FAILED, TRAVELLED, USAGE, Cli, on_terminal

_numbers = itertools.count(1)
QUICK = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)


def fresh(prefix: str = "foreign") -> str:
    return f"{prefix}-{next(_numbers)}"


def sha256(credential: str) -> str:
    return hashlib.sha256(credential.encode()).hexdigest()


def jsonl(rows: Iterable[Mapping[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_keys_of_a_csv_file_work_after_their_import(cli: Cli, tenant: str, tmp_path: Path) -> None:
    whole, key_id = fresh(), fresh()
    file = tmp_path / "keys.csv"
    phc = QUICK.hash("s3cret")
    file.write_text(
        "key_id,sha256,argon2,display_name,role_ids\n"
        f",{sha256(whole)},,By its hash,of-keys\n"
        f'{key_id},,"{phc}",By Argon2,of-keys\n',
        encoding="utf-8",
    )
    dry = cli("keys", "import", str(file), "--tenant", tenant, "--dry-run")
    assert dry.out == "2 keys would be imported\n"
    cli("verify", "-", stdin=whole, code=DENIED)
    done = cli("keys", "import", str(file), "--tenant", tenant, "--yes")
    assert done.out == "2 keys imported\n"
    assert TRAVELLED.fullmatch(done.err)
    assert phc not in done.out + done.err
    for credential in (whole, f"{key_id}.s3cret"):
        assert cli("verify", "-", "--requires", "orders.read", stdin=credential).told["decision"] == "allow"


def test_json_lines_come_through_a_pipe_and_the_answer_as_json(cli: Cli, tenant: str) -> None:
    rows: list[Mapping[str, object]] = [
        {"sha256": sha256(fresh()), "owner": "ada"},
        {"key_id": fresh(), "argon2": QUICK.hash("x")},
    ]
    done = cli("keys", "import", "-", "--tenant", tenant, "--yes", "--output", "json", stdin=jsonl(rows)).json
    assert [one["line"] for one in done["imported"]] == [1, 2]
    assert done["imported"][1]["key_id"] == rows[1]["key_id"]
    assert done["refused"] == []
    assert int(done["propagation"]["revision"]) > 0
    made = cli("keys", "get", done["imported"][0]["key_id"], "--output", "json").json
    assert made["key"]["owner"] == "ada"


def test_what_is_refused_is_told_by_line_and_nothing_is_imported(cli: Cli, tenant: str, tmp_path: Path) -> None:
    good, taken = fresh(), fresh()
    cli("keys", "import", "-", "--tenant", tenant, "--yes", stdin=jsonl([{"sha256": sha256(taken)}]))
    rows: list[Mapping[str, object]] = [
        {"sha256": sha256(good)},
        {"sha256": sha256(taken)},
        {"sha256": "nonsense"},
        {"key_id": fresh(), "argon2": "$2b$12$abc"},
        {"sha256": sha256(fresh()), "permissions": ["orders.read", "latchgate.keys.get"]},
        {"sha256": sha256(fresh()), "role_ids": ["no-such-role"]},
        {"sha256": sha256(fresh()), "tenant_id": "no-such-tenant"},
        {"sha256": sha256(good)},
    ]
    file = tmp_path / "keys.jsonl"
    file.write_text(jsonl(rows), encoding="utf-8")
    for options in (["--yes"], ["--dry-run"]):
        done = cli("keys", "import", str(file), "--tenant", tenant, *options, code=FAILED)
        lines = [re.split(r" {2,}", line.strip()) for line in done.out.splitlines()]
        assert lines[0] == ["LINE", "COLUMN", "WHY"]
        assert [line[0] for line in lines[1:8]] == ["2", "3", "4", "5", "6", "7", "8"]
        assert [line[1] for line in lines[1:8] if len(line) == 3] == [
            "-",
            "sha256",
            "argon2",
            "permissions 2",
            "-",
            "-",
            "sha256",
        ]
        assert lines[-1] == ["1 key would be imported, 7 lines refused"]
        assert "nothing was imported" in done.err
    cli("verify", "-", stdin=good, code=DENIED)
    told = cli("keys", "import", str(file), "--tenant", tenant, "--yes", "--skip-refused", "--output", "json").json
    assert [one["line"] for one in told["imported"]] == [1]
    assert [one["line"] for one in told["refused"]] == [2, 3, 4, 5, 6, 7, 8]
    assert cli("verify", "-", stdin=good).told["decision"] == "allow"


def test_a_file_of_many_batches_is_imported_with_a_bar_on_a_terminal(cli: Cli, tenant: str, tmp_path: Path) -> None:
    names = [fresh("many") for _ in range(2_100)]
    file = tmp_path / "many.csv"
    file.write_text("sha256\n" + "".join(f"{sha256(name)}\n" for name in names), encoding="utf-8")
    shown = on_terminal(cli, "keys", "import", str(file), "--tenant", tenant, typed="y")
    assert shown.code == 0
    assert "Import 2100 keys? [y/N]: " in shown.shown
    assert "checking" in shown.shown
    assert "2100/2100" in shown.shown
    assert "2100 keys imported" in shown.shown
    for name in (names[0], names[-1]):
        assert cli("verify", "-", stdin=name).told["decision"] == "allow"


def test_it_asks_and_where_nobody_can_answer_it_wants_to_be_told(cli: Cli, tenant: str, tmp_path: Path) -> None:
    name = fresh()
    file = tmp_path / "keys.csv"
    file.write_text(f"sha256\n{sha256(name)}\n", encoding="utf-8")
    assert "--yes" in cli("keys", "import", str(file), "--tenant", tenant, code=USAGE).err
    refused = on_terminal(cli, "keys", "import", str(file), "--tenant", tenant, typed="n")
    assert (refused.code, "nothing was changed" in refused.shown) == (FAILED, True)
    cli("verify", "-", stdin=name, code=DENIED)


@pytest.mark.parametrize(
    ("content", "code", "told"),
    [
        (b"sha257\n", USAGE, "no such column: 'sha257'"),
        (b"\xff\xfe\n", FAILED, "not UTF-8"),
        (b'sha256\n"open\n', USAGE, "no CSV"),
    ],
)
def test_a_file_that_cannot_be_read_ends_in_one_clear_line(
    cli: Cli, tmp_path: Path, content: bytes, code: int, told: str
) -> None:
    file = tmp_path / "bad"
    file.write_bytes(content)
    done = cli("keys", "import", str(file), code=code)
    assert (done.out, done.err.count("\n")) == ("", 1)
    assert told in done.err
    missing = cli("keys", "import", str(tmp_path / "none"), code=FAILED)
    assert "cannot be read" in missing.err


def test_an_empty_file_imports_nothing(cli: Cli) -> None:
    assert cli("keys", "import", "-", stdin="").out == "0 keys imported\n"
