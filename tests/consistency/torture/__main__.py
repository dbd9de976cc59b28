"""`make torture`: run it, print a table, exit with 1 where anything was wrong."""

# ruff: noqa: T201 - it reports to whoever ran it
from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from dataclasses import fields
from pathlib import Path

from tests.consistency.torture.cluster import own_postgres
from tests.consistency.torture.run import Options, torture
from tests.support.server import environment, make_root_key, run_command


def main() -> int:
    """The exit code."""
    options = _options()
    # The proxies' threads share this process with the administrators: let them have their turn soon.
    sys.setswitchinterval(0.0005)
    folder = Path(tempfile.mkdtemp(prefix="latchgate-"))
    try:
        with own_postgres(folder) as postgres:
            done = run_command("migrate", env=environment(postgres.url))
            assert done.returncode == 0, done.stderr
            _tell(f"{options.replicas} replicas, {options.seconds:.0f} s, seed {options.seed}")
            root_key = make_root_key(postgres.url)
            report = asyncio.run(torture(options, postgres.url, root_key, postgres, _tell))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{report.table()}")
    for line in (*report.judge.violations, *report.complaints):
        print(f"\n{line}")
    return int(report.failed)


def _tell(line: str) -> None:
    print(line, flush=True)


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="make torture ARGS='…'", description=__doc__, allow_abbrev=False)
    for field in fields(Options):
        name = f"--{field.name.replace('_', '-')}"
        if isinstance(field.default, bool):
            parser.add_argument(name, action=argparse.BooleanOptionalAction, default=field.default)
        else:
            parser.add_argument(name, type=type(field.default), default=field.default)
    return Options(**vars(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
