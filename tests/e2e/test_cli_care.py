"""Looking after keys on the command line: rotate, explain, answer a leak, and read the audit log."""

from __future__ import annotations

import asyncio
import re
import stat
from collections.abc import Mapping
from pathlib import Path

import asyncpg
import pytest

from tests.e2e.commands import Cli, make_key, on_terminal, run
from tests.support.postgres import Postgres
from tests.support.server import ServerProcess, environment, make_root_key, run_command


def test_a_rotated_key_has_a_successor_whose_key_string_is_in_a_file(env: Mapping[str, str], tmp_path: Path) -> None:
    key_id = make_key(env, tmp_path / "old")
    told = run("keys", "rotate", key_id, "--grace", "0s", "--key-file", str(tmp_path / "new"), env=env)
    assert [line.split()[1] for line in told.splitlines() if line.startswith("replaces")] == [key_id]
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600
    new = (tmp_path / "new").read_text()
    assert new.strip() not in told
    assert "allow" in run("verify", "-", env=env, stdin=new)
    assert "API_KEY_REVOKED" in run_command("verify", "-", env=env, stdin=(tmp_path / "old").read_text()).stdout


def test_an_explanation_is_a_line_for_each_check(env: Mapping[str, str], tmp_path: Path) -> None:
    key_id = make_key(env, tmp_path / "key", "--permission", "orders.read")
    told = run("keys", "explain", key_id, "--requires", "orders.write", env=env)
    assert "INSUFFICIENT_PERMISSIONS  FAILS" in told
    assert "orders.write was asked for; the key holds orders.read." in told
    assert told.rstrip().endswith("deny: INSUFFICIENT_PERMISSIONS")


def test_explanations_and_the_audit_log_fit_the_terminal(env: Mapping[str, str], tmp_path: Path) -> None:
    key_id = make_key(env, tmp_path / "key", "--permission", "a.very.long.permission.indeed", "--name", "a long name")
    cli = Cli(dict(env), "no secret of ours")
    for command in (["keys", "explain", key_id, "--requires", "another.very.long.permission"], ["audit", "list"]):
        shown = on_terminal(cli, *command)
        assert shown.code == 0
        assert max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in shown.shown.splitlines()) <= 80
    explained = " ".join(on_terminal(cli, "keys", "explain", key_id).shown.split())
    assert "the key holds a.very.long.permission.indeed" in explained, "wrapped, not cut"


def test_all_keys_of_an_owner_are_revoked_after_they_were_counted(env: Mapping[str, str], tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_key(env, tmp_path / name, "--owner", "mallory")
    assert run("keys", "revoke-all", "--owner", "mallory", "--dry-run", env=env) == "2 keys would be revoked\n"
    assert "--yes" in run("keys", "revoke-all", "--owner", "mallory", env=env, code=2)
    assert run("keys", "revoke-all", "--owner", "mallory", "--yes", env=env) == "2 keys revoked\n"
    assert "which keys?" in run("keys", "revoke-all", "--yes", env=env, code=2)


def test_a_leaked_key_is_disabled_by_its_key_string_on_standard_input(env: Mapping[str, str], tmp_path: Path) -> None:
    key_id = make_key(env, tmp_path / "key")
    found = "rubbish\n" + (tmp_path / "key").read_text()
    told = run("keys", "report-leak", "--source", "a gist", env=env, stdin=found)
    assert told == f"line 1: no genuine key\nline 2: disabled {key_id}\n"


def test_the_audit_log_is_listed_and_its_chain_holds(env: Mapping[str, str], tmp_path: Path) -> None:
    key_id = make_key(env, tmp_path / "key")
    run("keys", "disable", key_id, "--reason", "lost", env=env)
    listed = run("audit", "list", "--target", key_id, env=env).splitlines()
    assert [line.split()[2] for line in listed[1:]] == ["DisableKey", "CreateKey"]
    assert key_id in run("audit", "list", "--since", "1h", env=env)
    assert key_id not in run("audit", "list", "--until", "1h", env=env)
    told = run("audit", "verify", env=env)
    head = told.splitlines()[-1].removeprefix("head ")
    assert "none altered, removed or reordered" in told
    run("audit", "verify", "--head", head, env=env)


@pytest.fixture(scope="module")
def untampered(postgres: Postgres) -> tuple[str, str]:
    """A database with three audit events and more, and the head of their chain."""
    database = postgres.new_database()
    own = environment(database)
    own["LATCHGATE_ADMIN_KEY"] = make_root_key(database)
    with ServerProcess(database) as server:
        own["LATCHGATE_ADMIN_ADDRESS"] = server.admin_address
        run("tenants", "create", "acme", env=own)
    return database, run("audit", "verify", env=own).splitlines()[-1].removeprefix("head ")


@pytest.mark.parametrize(
    ("tampering", "told"),
    [
        ("UPDATE audit_events SET reason = 'another' WHERE sequence = 2", "event 2 was altered"),
        ("DELETE FROM audit_events WHERE sequence = 2", "event 2 is missing"),
        ("UPDATE audit_events SET sequence = CASE sequence WHEN 2 THEN -3 ELSE -2 END WHERE sequence IN (2, 3)", ""),
        ("DELETE FROM audit_events WHERE sequence = (SELECT max(sequence) FROM audit_events)", "was cut off"),
    ],
)
def test_tampering_with_the_audit_log_shows(
    postgres: Postgres, untampered: tuple[str, str], tampering: str, told: str
) -> None:
    original, head = untampered
    database = postgres.copy_of(original)

    async def tamper() -> None:
        connection = await asyncpg.connect(database)
        await connection.execute(tampering)
        await connection.execute("UPDATE audit_events SET sequence = -sequence WHERE sequence < 0")
        await connection.close()

    asyncio.run(tamper())
    assert told in run("audit", "verify", "--head", head, env=environment(database), code=1)
