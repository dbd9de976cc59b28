"""`serve`, `migrate`, `init` and `health`: what they need, and the one clear line where it is missing."""

from __future__ import annotations

import re
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.support.postgres import Postgres
from tests.support.server import ServerProcess, environment, run_command


def told(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What standard error says to people, without the log."""
    return [line for line in done.stderr.splitlines() if not line.startswith("{")]


def test_a_database_is_prepared_once(postgres: Postgres) -> None:
    env = environment(postgres.new_database(migrated=False))

    migrated, again = run_command("migrate", env=env), run_command("migrate", env=env)
    made, refused = run_command("init", env=env), run_command("init", env=env)

    assert migrated.returncode == again.returncode == 0
    assert re.fullmatch(r"(applied \d{4} [a-z_]+\n)+", migrated.stdout)
    assert again.stdout == "the schema is current\n"
    assert re.fullmatch(r"lg_[0-9A-Za-z]{22}\.[0-9A-Za-z]{49}\n", made.stdout)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert told(refused) == [
        "latchgate: there is a first administrator already; where it is lost, `latchgate init --recover` makes another"
    ]


def test_a_database_that_does_not_answer_is_told_in_one_line() -> None:
    env = environment("postgresql://nobody:sesame@127.0.0.1:1/latchgate")
    with ThreadPoolExecutor(3) as pool:
        ended = list(pool.map(lambda command: run_command(command, env=env), ["serve", "migrate", "init"]))

    for done in ended:
        assert (done.returncode, done.stdout) == (1, "")
        assert told(done) == [
            "latchgate: the database cannot be reached: Connection refused; see LATCHGATE_DATABASE_URL"
        ]
        assert "sesame" not in done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_database_that_lets_nobody_in_says_why_once_however_many_workers(postgres: Postgres, workers: str) -> None:
    url = urlsplit(postgres.url)
    cases = {
        urlunsplit(url._replace(path="/nowhere")): 'database "nowhere" does not exist',
        urlunsplit(
            url._replace(netloc="nobody:sesame@" + url.netloc.rpartition("@")[2])
        ): 'role "nobody" does not exist',
    }
    with ThreadPoolExecutor() as pool:
        ended = list(pool.map(lambda url: run_command("serve", env=environment(url, workers=workers)), cases))

    for why, done in zip(cases.values(), ended, strict=True):
        assert (done.returncode, done.stdout) == (1, "")
        assert told(done) == [f"latchgate: the database cannot be reached: {why}; see LATCHGATE_DATABASE_URL"]
        assert "sesame" not in done.stderr


def test_settings_that_cannot_work_are_refused_in_one_line_each(postgres: Postgres) -> None:
    database_url = postgres.new_database()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cases = {
            (("database_url", ""),): ["LATCHGATE_DATABASE_URL is not set, for example .+"],
            (("pepper", ""),): ["no pepper: set LATCHGATE_PEPPER or LATCHGATE_PEPPER_FILE; .+"],
            (("pepper", "c2hvcnQ="),): ["a pepper is malformed: 32 bytes or more in base64 are expected"],
            (("lease", "soon"), ("workers", "x")): ["LATCHGATE_LEASE: .+", "LATCHGATE_WORKERS: .+"],
            (("database_url", "postgresql://me:se/same@db/latchgate"),): [
                "LATCHGATE_DATABASE_URL: an address such as postgresql://.+ is expected; .+"
            ],
            (("drain_delay", "1h"), ("memory_limit", "1MiB")): [
                "LATCHGATE_MEMORY_LIMIT: .+ 256MiB",
                "LATCHGATE_DRAIN_DELAY: .+ 10m",
            ],
            (("pepper", ""), ("pepper_file", "/nowhere")): [
                "LATCHGATE_PEPPER_FILE /nowhere cannot be read: No such .+"
            ],
            (("workers", "2"), ("pepper", "")): ["no pepper: .+"],
            (("verify_listen", "unix:/nowhere/verify"),): ["cannot listen on unix:/nowhere/verify: .+ its folder .+"],
            (("leese", "3s"),): ["LATCHGATE_LEESE is no setting of this version"],
            (("config", "/nowhere/latchgate.toml"),): ["LATCHGATE_CONFIG: there is no file /nowhere/latchgate.toml"],
            (("admin_listen", "0.0.0.0:0"),): ["LATCHGATE_ADMIN_LISTEN=0.0.0.0:0 is not loopback: .+"],
            (("admin_listen", f"127.0.0.1:{port}"),): [f"cannot listen on 127.0.0.1:{port}.*"],
            (("database_url", postgres.new_database(migrated=False)),): ["the database's schema is not current; .+"],
        }
        with ThreadPoolExecutor(4) as pool:
            envs = [environment(**{"database_url": database_url} | dict(settings)) for settings in cases]
            ended = list(pool.map(lambda env: run_command("serve", env=env), envs))

    for lines, done in zip(cases.values(), ended, strict=True):
        assert (done.returncode, done.stdout) == (1, ""), done
        assert len(told(done)) == len(lines), done
        for line, found in zip(lines, told(done), strict=True):
            assert re.fullmatch(f"latchgate: {line}", found), done


def test_dev_stays_on_this_machine(tmp_path: Path) -> None:
    env = environment("", verify_listen="0.0.0.0:0")

    done = run_command("dev", "--data-dir", str(tmp_path / "data"), env=env)

    assert (done.returncode, done.stdout) == (1, "")
    assert told(done)[0].startswith("latchgate: LATCHGATE_VERIFY_LISTEN=0.0.0.0:0 is not loopback")
    assert not (tmp_path / "data").exists()


def test_dev_is_one_process(tmp_path: Path) -> None:
    done = run_command("dev", "--data-dir", str(tmp_path / "data"), env=environment("", workers="3"))

    assert (done.returncode, done.stdout) == (1, "")
    assert told(done) == ["latchgate: LATCHGATE_WORKERS=3: `dev` runs one process; `serve` runs several"]
    assert not (tmp_path / "data").exists()


def test_health_is_the_exit_code(postgres: Postgres) -> None:
    database_url = postgres.new_database()
    env = environment(database_url)
    with ServerProcess(database_url) as server:
        serving = [
            run_command("health", "--address", address, env=env)
            for address in (server.verify_address, server.admin_address)
        ]
    ended = run_command("health", "--address", server.verify_address, env=env)

    assert [(done.returncode, done.stdout) for done in serving] == [(0, "SERVING\n")] * 2
    assert ended.returncode == 1
    assert told(ended) == [f"latchgate: {server.verify_address} does not answer: UNAVAILABLE"]
