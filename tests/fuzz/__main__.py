"""`make fuzz`: every target, with as many values as asked for; exit with 1 where one was a finding.

make fuzz ARGS='--examples 2000 --seed 7 --only CheckRequest,UpdateKey'
"""

# ruff: noqa: T201 - it reports to whoever ran it
from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from tests.consistency.torture.cluster import own_postgres
from tests.fuzz.runner import fuzz
from tests.fuzz.targets import PARSERS, ControlPlane, DataPlane, Target
from tests.fuzz.world import World, told
from tests.support.server import ServerProcess, environment, make_root_key, run_command


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="make fuzz ARGS='…'", description=__doc__, allow_abbrev=False)
    parser.add_argument("--examples", type=int, default=200, help="values for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="targets whose names begin so, with commas between")
    parser.add_argument("--transport", default="native", choices=("native", "grpcio"))
    options = parser.parse_args()
    findings = _run(PARSERS, options)
    folder = Path(tempfile.mkdtemp(prefix="latchgate-"))
    try:
        with own_postgres(folder) as postgres:
            done = run_command("migrate", env=environment(postgres.url))
            assert done.returncode == 0, done.stderr
            root_key = make_root_key(postgres.url)
            with ServerProcess(postgres.url, {"transport": options.transport}) as server:
                findings += _run_server(World(server, root_key), options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"findings: {findings}")
    return int(findings > 0)


def _run_server(world: World, options: argparse.Namespace) -> int:
    with closing(world), closing(DataPlane(world)) as data, closing(ControlPlane(world)) as control:
        findings = _run((*data.targets(), *control.targets()), options)
    log = "".join(world.server.log)
    for name, found in (("a traceback", "Traceback" in log), ("a secret", bool(told(log)))):
        if found:
            print(f"{name} is in the log")
            findings += 1
    return findings


def _run(targets: Iterable[Target], options: argparse.Namespace) -> int:
    findings = 0
    for target in targets:
        if not target[0].startswith(tuple(options.only.split(","))):
            continue
        began = time.monotonic()
        try:
            fuzz(target, options.examples, options.seed)
        except Exception:  # noqa: BLE001 - whatever it is, it is a finding
            findings += 1
            traceback.print_exc()
        print(f"{target[0]:40}{options.examples:>8} values {time.monotonic() - began:>7.1f} s", flush=True)
    return findings


if __name__ == "__main__":
    sys.exit(main())
