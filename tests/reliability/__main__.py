"""`make storm`: kill servers and PostgreSQL for a while, and see whether anything that was acknowledged is lost.

make storm ARGS='--kills 40 --servers 2 --seed 7'
"""

# ruff: noqa: T201 - it reports to whoever ran it
from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.consistency.torture.cluster import own_postgres
from tests.reliability.storm import QUOTA, Storm
from tests.support.server import environment, make_root_key, run_command


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="make storm ARGS='…'", description=__doc__, allow_abbrev=False)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    kills = random.Random(options.seed).choices(("server", "PostgreSQL"), k=options.kills)
    folder = Path(tempfile.mkdtemp(prefix="latchgate-"))
    try:
        with own_postgres(folder) as postgres:
            done = run_command("migrate", env=environment(postgres.url))
            assert done.returncode == 0, done.stderr
            storm = Storm(postgres, make_root_key(postgres.url), servers=options.servers, seed=options.seed)
            outcome = storm.run(kills)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(outcome.table())
    for line in outcome.lost:
        print(line)
    return int(bool(outcome.lost) or outcome.allowed > QUOTA)


if __name__ == "__main__":
    sys.exit(main())
