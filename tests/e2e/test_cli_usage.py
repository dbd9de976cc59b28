"""What keys are used for, on the command line: counts in a chart, single uses, addresses, and a rotation to its end."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import asyncpg

from tests.e2e.commands import make_key, run
from tests.support.quick_cli import quick_latchgate
from tests.support.server import run_command
from tests.support.waiting import wait_until


def use(env: Mapping[str, str], path: Path, *options: str) -> None:
    run_command("verify", "-", *options, env=env, stdin=path.read_text())


def test_the_busiest_keys_are_listed_with_their_uses(env: Mapping[str, str], tmp_path: Path) -> None:
    run("tenants", "create", "busy", env=env)
    made = ("keys", "create", "--tenant", "busy", "--name", "shop", "--key-file", str(tmp_path / "key"))
    key_id = run(*made, env=env).strip()
    use(env, tmp_path / "key")
    wait_until(lambda: key_id in run("keys", "busiest", "--tenant", "busy", env=env))
    heading, row = run("keys", "busiest", "--tenant", "busy", env=env).splitlines()
    assert heading.split("  ")[0] == "KEY ID"
    assert row.split()[:3] == [key_id, "busy", "shop"]
    (told,) = json.loads(run("keys", "busiest", "--tenant", "busy", "--output", "json", env=env))["keys"]
    assert int(told["uses_this_hour"]) + int(told["uses_hour_before"]) == 1
    assert key_id in run("keys", "busiest", "--limit", "100", env=env)
    assert "--limit" in run("keys", "busiest", "--limit", "101", env=env, code=2)


def test_usage_is_a_chart_with_its_sum(env: Mapping[str, str], tmp_path: Path) -> None:
    key_id = make_key(env, tmp_path / "key", "--owner", "ann")
    use(env, tmp_path / "key", "--ip", "203.0.113.9")
    use(env, tmp_path / "key", "--requires", "orders.read")

    def total() -> str:
        return run("keys", "usage", key_id, env=env).splitlines()[-1]

    wait_until(lambda: total() == "allowed 1, denied 1: 1 INSUFFICIENT_PERMISSIONS")
    buckets = json.loads(run("keys", "usage", key_id, "--since", "2h", "--output", "json", env=env))["buckets"]
    assert sum(int(bucket["allowed"]) for bucket in buckets) == 1
    for subject in (("keys", "usage", key_id), ("tenants", "usage", "acme")):
        told = run(*subject, "--since", "2h", env=env)
        assert "█" in told
        assert told.splitlines()[0].split() == ["FROM", "(UTC)", "ALLOWED", "DENIED"]
    before = datetime.now(UTC).date()
    days = run("keys", "usage", key_id, "--by", "day", "--since", "7d", env=env).splitlines()
    if datetime.now(UTC).date() != before:  # midnight came in between and may have been counted
        days = run("keys", "usage", key_id, "--by", "day", "--since", "7d", env=env).splitlines()
    assert len(days) == 8 + 1 + 2
    assert "start_time" not in run("keys", "usage", key_id, "--since", "-1h", env=env, code=2)


def test_uses_and_sources_are_lists(env: Mapping[str, str], tmp_path: Path) -> None:
    key_id = make_key(env, tmp_path / "key", "--owner", "ann")
    use(env, tmp_path / "key", "--ip", "203.0.113.9")
    use(env, tmp_path / "key", "--ip", "203.0.113.9", "--requires", "orders.read")
    wait_until(lambda: len(run("keys", "uses", key_id, env=env).splitlines()) == 3)
    _, second, first = [line.split() for line in run("keys", "uses", key_id, env=env).splitlines()]
    assert first[1:4] == ["allow", "203.0.113.9", "ann"]
    assert second[1:4] == ["INSUFFICIENT_PERMISSIONS", "203.0.113.9", "ann"]
    _, source = run("keys", "sources", key_id, env=env).splitlines()
    assert source.split()[:2] == ["203.0.113.9", "2"]
    listed = run("keys", "list", env=env)
    assert next(line for line in listed.splitlines() if line.startswith(key_id)).split()[-1] == "ago"


def backdate(database: str, key_id: str, days: float) -> None:
    """Let a key's use lie in the past."""

    async def change() -> None:
        connection = await asyncpg.connect(database)
        try:
            number = await connection.fetchval("SELECT number FROM keys WHERE key_id = $1", key_id)
            for statement in (
                "UPDATE key_last_uses SET time = now() - make_interval(secs => $2) WHERE key_number = $1",
                "DELETE FROM key_usage WHERE key_number = $1 AND $2 > 0",
            ):
                await connection.execute(statement, number, days * 86_400)
        finally:
            await connection.close()

    asyncio.run(change())


def test_a_rotation_is_watched_until_the_old_key_can_go_unnoticed(
    env: Mapping[str, str], database: str, tmp_path: Path
) -> None:
    old = make_key(env, tmp_path / "old")
    run("keys", "rotate", old, "--grace", "7d", "--key-file", str(tmp_path / "new"), env=env)
    use(env, tmp_path / "old")
    wait_until(lambda: "1 within the last hour" in run("keys", "rotation", old, env=env))
    told = run("keys", "rotation", old, env=env)
    assert "The new key was not used with success within the last day." in told
    command = [str(quick_latchgate()), "keys", "rotation", old, "--watch"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        assert "safe to revoke: no" in watching.stdout.readline()
        use(env, tmp_path / "new")
        assert "old 1, new 1; safe to revoke: no" in watching.stdout.readline()
        backdate(database, old, 1)
        told, hint = watching.communicate(timeout=30)
    assert watching.returncode == 0
    assert told.splitlines()[-1].endswith("safe to revoke: yes")
    assert hint.strip() == f"latchgate keys revoke {old}"
    assert "longer than its longest pause" in run("keys", "rotation", old, env=env)


def test_a_key_that_was_never_rotated_has_no_rotation(env: Mapping[str, str], tmp_path: Path) -> None:
    key_id = make_key(env, tmp_path / "key")
    assert "not part of a rotation" in run("keys", "rotation", key_id, env=env, code=1)


def test_keys_that_somebody_should_look_at_are_listed(env: Mapping[str, str], database: str, tmp_path: Path) -> None:
    soon = make_key(env, tmp_path / "soon", "--expire-time", "7d", "--rotate-by-time", "1d")
    later = make_key(env, tmp_path / "later", "--expire-time", "90d")

    def listed(*command: str) -> list[str]:
        return [line.split()[0] for line in run("keys", *command, env=env).splitlines()[1:]]

    assert soon in listed("expiring")
    assert later not in listed("expiring")
    assert later in listed("expiring", "--within", "100d")
    assert soon not in listed("rotation-due")
    assert soon in listed("rotation-due", "--within", "2d")
    assert later not in listed("stale")
    assert {soon, later} <= set(listed("stale", "--unused-for", "0s"))
    assert {soon, later} <= set(listed("list", "--unused-since", "0s"))
