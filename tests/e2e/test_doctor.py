"""`latchgate doctor` on deployments that are really broken, one way each, and on one that is well."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.support.postgres import Postgres
from tests.support.server import PATIENT, ServerProcess, environment, make_root_key, run_command
from tests.support.valkey import valkey_server
from tests.support.valkey_cluster import running_cluster
from tests.support.waiting import wait_until

LEASE = "1500ms"
PATIENTLY = {"LATCHGATE_LIMIT_STORE_TIMEOUT": PATIENT}
OTHER_PEPPER = base64.b64encode(bytes(range(1, 33))).decode()
CHECKS = {
    *("settings", "database", "clock", "durability", "idle sessions", "connections", "schema", "timeline"),
    *("limit store", "triggers", "pepper", "administrators", "replicas", "verify port", "admin port"),
}

Finding = Mapping[str, str]


def execute(database_url: str, *statements: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(database_url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())


def set_for_all(database_url: str, name: str, value: str) -> None:
    """Set a parameter of the PostgreSQL server, and wait until sessions begin with it."""
    execute(database_url, f"ALTER SYSTEM SET {name} = {value}", "SELECT pg_reload_conf()")

    async def shown() -> str:
        connection = await asyncpg.connect(database_url)
        try:
            return str(await connection.fetchval("SELECT current_setting($1)", name))
        finally:
            await connection.close()

    wait_until(lambda: asyncio.run(shown()) == value)


def name_of(database_url: str) -> str:
    """The database's name."""
    return urlsplit(database_url).path.removeprefix("/")


def examined(env: dict[str, str], code: int) -> list[Finding]:
    """What the doctor finds. It says nothing else, and no secret."""
    done = run_command("doctor", "--output", "json", env=env)
    assert (done.returncode, done.stderr) == (code, ""), done
    assert not any(secret in done.stdout for secret in (env.get("LATCHGATE_PEPPER") or "sesame", "sesame"))
    told: Any = json.loads(done.stdout)
    assert told["healthy"] == (code == 0)
    assert all(finding["advice"] for finding in told["findings"] if finding["level"] != "ok")
    findings: list[Finding] = told["findings"]
    return findings


def amiss(findings: list[Finding]) -> list[tuple[str, str]]:
    """The checks that are not well, with their level."""
    return [(finding["check"], finding["level"]) for finding in findings if finding["level"] != "ok"]


def told(findings: list[Finding], check: str) -> str:
    """What was found by a check, and the advice."""
    (finding,) = [finding for finding in findings if finding["check"] == check and finding["level"] != "ok"]
    return f"{finding['found']} | {finding['advice']}"


@pytest.fixture(scope="module")
def durable(postgres: Postgres) -> Iterator[None]:
    """The tests' PostgreSQL, which need not survive a crash, as one that would."""
    set_for_all(postgres.url, "fsync", "on")
    yield
    set_for_all(postgres.url, "fsync", "off")


@pytest.fixture(scope="module")
def database(postgres: Postgres, durable: None) -> str:
    database_url = postgres.new_database()
    make_root_key(database_url)
    # As `latchgate migrate` leaves it; a copy of a template does not take that along.
    name = name_of(database_url)
    execute(database_url, f"ALTER DATABASE {name} SET idle_in_transaction_session_timeout = 1200")
    return database_url


@pytest.fixture(scope="module")
def server(database: str) -> Iterator[ServerProcess]:
    with ServerProcess(database, {"lease": LEASE}) as process:
        yield process


@pytest.fixture(scope="module")
def env(database: str, server: ServerProcess) -> dict[str, str]:
    """The environment of the server's own machine."""
    return environment(database, lease=LEASE) | {
        "LATCHGATE_VERIFY_ADDRESS": server.verify_address,
        "LATCHGATE_ADMIN_ADDRESS": server.admin_address,
    }


@pytest.fixture
def altered(database: str) -> Iterator[Callable[[str, str], None]]:
    """Breaks something in SQL, and mends it after the test."""
    mending: list[str] = []

    def alter(breaking: str, mend: str) -> None:
        mending.append(mend)
        execute(database, *breaking.split("; "))

    yield alter
    for statements in mending:
        execute(database, *statements.split("; "))


def test_a_deployment_that_is_well_passes_every_check(env: dict[str, str]) -> None:
    findings = examined(env, 0)
    assert amiss(findings) == []
    assert {finding["check"] for finding in findings} == CHECKS


def test_the_table_has_a_line_for_each_check_and_one_for_advice(env: dict[str, str]) -> None:
    done = run_command("doctor", env=env | {"LATCHGATE_ADMIN_ADDRESS": "127.0.0.1:1"})
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"ok +clock +this machine and the database agree to 1s", lines[3])
    assert re.fullmatch(r"wrong +admin port +127.0.0.1:1 does not answer: UNAVAILABLE", lines[-2])
    assert re.fullmatch(r" +→ start `latchgate serve`, or say in LATCHGATE_ADMIN_ADDRESS where it listens", lines[-1])
    assert len(lines) == len(CHECKS) + 1


def test_a_database_that_is_down_is_said_so_and_the_ports_are_asked_all_the_same(env: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    findings = examined(env | {"LATCHGATE_DATABASE_URL": f"postgresql://nobody:sesame@127.0.0.1:{port}/latchgate"}, 1)
    assert amiss(findings) == [("database", "wrong")]
    assert "it cannot be reached" in told(findings, "database")
    asked = {"settings", "limit store", "database", "verify port", "admin port"}
    assert {finding["check"] for finding in findings} == asked


@pytest.mark.parametrize("address", ["postgresql://nobody:sesame@[127.0.0.1/x", "postgresql://x:sesame@host:port/x"])
def test_an_address_that_makes_no_sense_is_not_quoted(env: dict[str, str], address: str) -> None:
    findings = examined(env | {"LATCHGATE_DATABASE_URL": address}, 1)
    assert amiss(findings) == [("settings", "wrong")]
    assert "sesame" not in str(findings)


def test_a_database_that_does_not_exist_is_named(env: dict[str, str], database: str) -> None:
    findings = examined(env | {"LATCHGATE_DATABASE_URL": re.sub(r"/test_\d+", "/nowhere", database)}, 1)
    assert 'database "nowhere" does not exist' in told(findings, "database")


def test_settings_that_do_not_parse_are_each_told(env: dict[str, str]) -> None:
    findings = examined(env | {"LATCHGATE_LEASE": "soon", "LATCHGATE_WORKERS": "x"}, 1)
    assert amiss(findings) == [("settings", "wrong")] * 2


def test_a_pepper_that_keys_need_is_missed(env: dict[str, str]) -> None:
    findings = examined(env | {"LATCHGATE_PEPPER": OTHER_PEPPER}, 1)
    assert amiss(findings) == [("pepper", "wrong")]
    assert re.match(
        r"1 keys were hashed under the pepper [0-9a-f]{16}, which is not configured", told(findings, "pepper")
    )


def test_an_older_pepper_is_needed_for_as_long_as_keys_were_hashed_under_it(env: dict[str, str]) -> None:
    findings = examined(env | {"LATCHGATE_PEPPER": f"{OTHER_PEPPER},{env['LATCHGATE_PEPPER']}"}, 0)
    (pepper,) = [finding for finding in findings if finding["check"] == "pepper"]
    assert (pepper["level"], pepper["found"]) == ("ok", "1 keys are still hashed under an older pepper")


def test_no_pepper_at_all_is_told_beside_everything_else(env: dict[str, str]) -> None:
    findings = examined(env | {"LATCHGATE_PEPPER": ""}, 1)
    assert amiss(findings) == [("pepper", "wrong")]
    assert {finding["check"] for finding in findings} == CHECKS


def test_an_old_and_a_new_schema_are_told_apart(postgres: Postgres) -> None:
    empty, newer = postgres.new_database(migrated=False), postgres.new_database()
    execute(newer, "INSERT INTO schema_migrations (version, name, digest) VALUES (9999, 'later', '')")
    assert "latchgate migrate" in told(examined(environment(empty), 1), "schema")
    assert "upgrade Latchgate" in told(examined(environment(newer), 1), "schema")


def test_a_deployment_without_an_administrator_or_a_server_is_told_how_to_get_them(postgres: Postgres) -> None:
    findings = examined(environment(postgres.new_database(), verify_listen="127.0.0.1:1"), 1)
    assert told(findings, "administrators") == "there is none yet | latchgate init"
    assert told(findings, "replicas").endswith("start one: latchgate serve")
    assert "127.0.0.1:1 does not answer" in told(findings, "verify port")
    assert "LATCHGATE_ADMIN_ADDRESS" in told(findings, "admin port")


def test_a_server_that_crashed_left_a_lease_behind(postgres: Postgres) -> None:
    database_url = postgres.new_database()
    crashed = ServerProcess(database_url, {"lease": LEASE})
    crashed.start()
    crashed.kill()
    findings = examined(environment(database_url), 1)
    levels = [finding["level"] for finding in findings if finding["check"] == "replicas"]
    assert levels == ["warning", "wrong"], "its row, and that nobody else serves"


@pytest.mark.parametrize(("on_loss", "level"), [("share", "warning"), ("deny", "wrong")])
def test_a_limit_store_that_is_down_is_as_bad_as_what_follows(env: dict[str, str], on_loss: str, level: str) -> None:
    store = {"LATCHGATE_LIMIT_STORE": "valkey://:sesame@127.0.0.1:1/0", "LATCHGATE_ON_LIMIT_STORE_LOSS": on_loss}
    findings = examined(env | store, int(level == "wrong"))
    assert amiss(findings) == [("limit store", level)]


def test_a_limit_store_that_runs_is_asked(env: dict[str, str]) -> None:
    with valkey_server() as store:
        findings = examined(env | PATIENTLY | {"LATCHGATE_LIMIT_STORE": store.connection_url}, 0)
    assert ("limit store", "it answers") in [(finding["check"], finding["found"]) for finding in findings]


def test_every_node_of_a_cluster_is_asked(env: dict[str, str]) -> None:
    with running_cluster() as cluster:
        asking = env | PATIENTLY | {"LATCHGATE_LIMIT_STORE": cluster.address(0)}
        found = [(finding["check"], finding["found"]) for finding in examined(asking, 0)]
        assert ("limit store", "all 3 nodes that keep limits answer") in found
        cluster.kill(1)
        failing = f"1 of 3 nodes failed: {cluster.name(1)}: no connection; of each rate limit, every process enforces"
        assert told(examined(asking, 0), "limit store").startswith(failing)


def test_servers_that_are_no_cluster_do_not_count_for_each_other(env: dict[str, str]) -> None:
    with valkey_server() as one, valkey_server() as other:
        hosts = f"127.0.0.1:{one.port},127.0.0.1:{other.port}"
        findings = examined(env | PATIENTLY | {"LATCHGATE_LIMIT_STORE": f"valkey://{hosts}/0"}, 0)
    assert "it tells of no cluster, which several hosts would have to be" in told(findings, "limit store")


def test_a_clock_that_is_an_hour_off_is_noticed(env: dict[str, str], tmp_path: Path) -> None:
    late = "import time; real = time.time; time.time = lambda: real() - 3_600"
    (tmp_path / "sitecustomize.py").write_text(late, encoding="ascii")
    findings = examined(env | {"PYTHONPATH": str(tmp_path)}, 1)
    # gRPC counts its deadlines on that clock as well, so that the ports cannot be asked.
    assert amiss(findings)[0] == ("clock", "wrong")
    assert re.match(r"the database's clock is 3[56]\d\d\.\ds ahead of this machine's", told(findings, "clock"))


@pytest.mark.parametrize("parameter", ["fsync", "full_page_writes"])
def test_a_database_that_may_lose_what_it_has_confirmed_is_noticed(
    env: dict[str, str], database: str, parameter: str
) -> None:
    set_for_all(database, parameter, "off")
    try:
        findings = examined(env, 1)
    finally:
        set_for_all(database, parameter, "on")
    assert amiss(findings) == [("durability", "wrong")]
    assert told(findings, "durability").startswith(f"{parameter} is off")


@pytest.mark.parametrize(
    ("breaking", "mending", "check", "level", "found"),
    [
        (
            "ALTER DATABASE {name} SET synchronous_commit = off",
            "ALTER DATABASE {name} RESET synchronous_commit",
            *("durability", "wrong", "synchronous_commit is off by default"),
        ),
        (
            "ALTER DATABASE {name} SET idle_in_transaction_session_timeout = 0",
            "ALTER DATABASE {name} SET idle_in_transaction_session_timeout = 1200",
            *("idle sessions", "warning", "a forgotten session"),
        ),
        (
            "ALTER DATABASE {name} CONNECTION LIMIT 9",
            "ALTER DATABASE {name} CONNECTION LIMIT -1",
            *("connections", "wrong", "9 allowed"),
        ),
        (
            "ALTER TABLE keys DISABLE TRIGGER latchgate_3_record_update",
            "ALTER TABLE keys ENABLE ALWAYS TRIGGER latchgate_3_record_update",
            *("triggers", "wrong", "switched off: keys.latchgate_3_record_update"),
        ),
        (
            "UPDATE trusted_timeline SET timeline = 'another'",
            "UPDATE trusted_timeline SET timeline = latchgate_timeline()",
            *("timeline", "warning", "the database was promoted or restored"),
        ),
        (
            "UPDATE tenants SET enabled = false WHERE tenant_id = 'latchgate'",
            "UPDATE tenants SET enabled = true WHERE tenant_id = 'latchgate'",
            *("administrators", "wrong", "no key can administer everything any more | latchgate init --recover"),
        ),
    ],
)
def test_what_breaks_the_promise_is_noticed(
    env: dict[str, str],
    database: str,
    altered: Callable[[str, str], None],
    breaking: str,
    mending: str,
    check: str,
    level: str,
    found: str,
) -> None:
    name = name_of(database)
    altered(breaking.format(name=name), mending.format(name=name))
    findings = examined(env, int(level == "wrong"))
    assert amiss(findings) == [(check, level)]
    assert told(findings, check).startswith(found)
