"""The examples in other languages: what their README files tell to type works, against a real server.

The first run on a machine fetches and compiles what they need, which takes minutes. What is fetched stays in the caches
of the languages' own tools and in folders that git ignores. Java's takes a minute of CPU each time, and is left out
unless LATCHGATE_TEST_JAVA is set.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import tenant_pb2
from tests.support.postgres import Postgres
from tests.support.server import Admin, ServerProcess, make_root_key

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 800
# What a program says that could not reach its registry, and nothing that is wrong with an example.
UNREACHABLE = re.compile(
    r"dial tcp|no such host|i/o timeout|connection refused|TLS handshake timeout|ENOTFOUND|EAI_AGAIN|ECONNREFUSED"
    r"|ETIMEDOUT|ENETUNREACH|Unknown host|UnknownHostException|Could not transfer artifact"
)
EXPECTED = [
    "created KEY",
    "orders.read: allowed, for tenant demo",
    "orders.write: denied, INSUFFICIENT_PERMISSIONS",
    "disabled KEY",
    "orders.read: denied, API_KEY_DISABLED",
]


@pytest.fixture(scope="module")
def env(postgres: Postgres) -> Iterator[dict[str, str]]:
    """The environment of somebody who has a Latchgate, with the tenant `demo`."""
    database_url = postgres.new_database()
    root_key = make_root_key(database_url)
    with ServerProcess(database_url) as server:
        root = Admin(server.admin_address, root_key)
        root.CreateTenant(pb.CreateTenantRequest(tenant=tenant_pb2.Tenant(tenant_id="demo")))
        root.close()
        yield os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "LATCHGATE_VERIFY_ADDRESS": server.verify_address,
            "LATCHGATE_ADMIN_ADDRESS": server.admin_address,
            "LATCHGATE_ADMIN_KEY": root_key,
        }


def commands(language: str) -> str:
    """What the README of an example tells to type, as a script."""
    page = (ROOT / "examples" / language / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    return f"set -e\n{block}"


def run(language: str, env: dict[str, str]) -> str:
    """What the commands print on standard output. Skips where nothing could be fetched."""
    process = subprocess.Popen(
        ["bash", "-c", commands(language)],
        cwd=ROOT / "examples" / language,
        env=env,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        shown, complaints = process.communicate(timeout=SECONDS)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if process.returncode != 0 and UNREACHABLE.search(complaints + shown):
        pytest.skip(f"what the example needs cannot be fetched: {(complaints + shown).strip().splitlines()[-1]}")
    assert process.returncode == 0, complaints + shown
    assert env["LATCHGATE_ADMIN_KEY"] not in shown + complaints
    return shown


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize(("language", "tool"), [("go", "go"), ("typescript", "npm"), ("java", "mvn")])
def test_an_example_makes_a_key_verifies_it_and_switches_it_off(env: dict[str, str], language: str, tool: str) -> None:
    if language == "java" and not os.environ.get("LATCHGATE_TEST_JAVA"):
        pytest.skip("compiling what is generated for Java takes a minute: LATCHGATE_TEST_JAVA=1 has it done")
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    shown = run(language, env)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)  # Maven colours its silence
    lines = [re.sub(r"lg_[0-9A-Za-z]{22}$", "KEY", line) for line in plain.splitlines()]
    assert lines[-len(EXPECTED) :] == EXPECTED
    page = (ROOT / "examples" / language / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```console\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert [re.sub(r"lg_[0-9A-Za-z]{22}$", "KEY", line) for line in block.splitlines()] == EXPECTED
