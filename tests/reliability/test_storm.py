"""What was acknowledged outlives a crash of the server and of PostgreSQL. `make storm` goes on for longer."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tests.consistency.torture.cluster import own_postgres
from tests.reliability.storm import QUOTA, Storm
from tests.support.server import environment, make_root_key, run_command


def test_nothing_acknowledged_is_lost_and_no_quota_exceeded_when_everything_is_killed() -> None:
    """This PostgreSQL writes to its disk before it says that it did, unlike the one that other tests share."""
    folder = Path(tempfile.mkdtemp(prefix="latchgate-"))
    try:
        with own_postgres(folder) as postgres:
            assert run_command("migrate", env=environment(postgres.url)).returncode == 0
            storm = Storm(postgres, make_root_key(postgres.url), servers=1, seed=1)
            outcome = storm.run(["server", "PostgreSQL"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)

    assert outcome.acknowledged > 10
    assert not outcome.lost
    assert 0 < outcome.allowed <= QUOTA
    assert "none altered, removed or reordered" in outcome.audit
