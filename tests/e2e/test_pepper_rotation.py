"""A pepper is replaced while keys are in use, from the first restart to the removal of the old one."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest

from latchgate.v1.decision_pb2 import DECISION_ALLOW, DECISION_DENY
from tests.conformance.house import House
from tests.support.server import PEPPER as OLD
from tests.support.server import Admin, ServerProcess, Verify, environment, make_root_key, run_command

NEW = base64.b64encode(bytes(range(100, 132))).decode()
SECONDS = 20.0


def pepper_findings(database_url: str, pepper: str) -> list[dict[str, Any]]:
    """What the doctor says about peppers with this setting."""
    done = run_command("doctor", "--output", "json", env=environment(database_url, pepper=pepper))
    assert OLD not in done.stdout
    assert NEW not in done.stdout
    return [finding for finding in json.loads(done.stdout)["findings"] if finding["check"] == "pepper"]


def wait_until_told(database_url: str, pepper: str, found: str) -> None:
    deadline = time.monotonic() + SECONDS
    while found not in (told := pepper_findings(database_url, pepper)[-1]["found"]):
        assert time.monotonic() < deadline, told


@pytest.fixture
def root_key(database_url: str) -> str:
    return make_root_key(database_url)


def test_a_pepper_is_replaced_from_start_to_end(database_url: str, root_key: str) -> None:
    with ServerProcess(database_url) as server:
        root = Admin(server.admin_address, root_key)
        house = House(root)
        used, unused = house.key().key_string, house.key().key_string
        root.close()

    # Behind the old one: nothing changes, but each replica can verify what any other makes by now.
    with ServerProcess(database_url, {"pepper": f"{OLD},{NEW}"}) as server:
        verify = Verify(server.verify_address)
        assert verify(used).decision == DECISION_ALLOW
        verify.close()
    assert "all 3 keys" in pepper_findings(database_url, f"{OLD},{NEW}")[-1]["found"]

    # In front: what is used is hashed anew, what is made is made under it, and the doctor counts the others.
    both = f"{NEW},{OLD}"
    with ServerProcess(database_url, {"pepper": both}) as server:
        verify, root = Verify(server.verify_address), Admin(server.admin_address, root_key)
        assert "3 keys are still hashed under an older pepper" in pepper_findings(database_url, both)[-1]["found"]
        made = House(root).key().key_string  # which uses the root key
        assert verify(used).decision == verify(made).decision == DECISION_ALLOW
        wait_until_told(database_url, both, "1 keys are still hashed under an older pepper")
        assert verify(unused).decision == DECISION_ALLOW
        wait_until_told(database_url, both, "all 4 keys are hashed under the current one")
        verify.close()
        root.close()

    # The old one is gone: every key verifies without it, and the audit log alone still needs it.
    with ServerProcess(database_url, {"pepper": NEW}) as server:
        verify = Verify(server.verify_address)
        for key in (used, unused, made, root_key):
            assert verify(key).decision == DECISION_ALLOW
            assert verify(f"{key[:-1]}{'1' if key[-1] == '0' else '0'}").decision == DECISION_DENY
        verify.close()
        warned, fine = pepper_findings(database_url, NEW)
        assert (warned["level"], fine["level"]) == ("warning", "ok")
        assert "audit verify" in warned["advice"]
    with_both = run_command("audit", "verify", env=environment(database_url, pepper=both))
    assert with_both.returncode == 0, with_both.stderr
    without = run_command("audit", "verify", env=environment(database_url, pepper=NEW))
    assert without.returncode == 1
    assert "pepper" in without.stderr


def test_a_pepper_that_is_removed_too_early_is_told_before_anybody_is_denied(database_url: str, root_key: str) -> None:
    (finding,) = [found for found in pepper_findings(database_url, NEW) if found["level"] == "wrong"]
    assert finding["found"].startswith("1 keys were hashed under the pepper ")
    assert "put it back" in finding["advice"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_refuses_another_deployments_pepper_unless_the_old_one_is_given_up(
    database_url: str, root_key: str, workers: str
) -> None:
    refused = run_command("serve", env=environment(database_url, pepper=NEW, workers=workers))
    assert refused.returncode == 1
    told = [line for line in refused.stderr.splitlines() if not line.startswith("{")]
    assert len(told) == 1
    assert told[0].startswith("latchgate: none of the database's keys was made under the pepper")

    recovered = run_command("init", "--recover", env=environment(database_url, pepper=NEW))
    with ServerProcess(database_url, {"pepper": NEW, "workers": workers}) as server:
        verify = Verify(server.verify_address)
        assert verify(recovered.stdout.strip()).decision == DECISION_ALLOW
        verify.close()
