"""Checks the models beside this file with Spin: each must hold, and each of its mutants must fail."""

# ruff: noqa: T201 - it reports to whoever ran it
from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent

HOLDS = "holds"
FAILS = "fails"

_PACKAGES = {"spin": "spin", "cc": "gcc libc6-dev"}
"""The programs that this needs, and the Debian packages that they come in."""

_SECONDS = 120.0
"""For one command. Every run here takes a small part of that."""

_MEGABYTES = 1500
"""For the states of one run."""

_DEPTH = 100_000
"""In steps. A run that gets deeper is not taken for one that holds."""

_STATES = re.compile(r"([0-9.e+]+) states, stored")
_HEADING = f"{'model':<6} {'variant':<15} {'expected':<8} {'seen':<8} {'states':>10} {'seconds':>7}"


@dataclass(frozen=True, slots=True)
class Run:
    """A model with some macros defined. bounds: how far it looks, in words, for a model as it should be."""

    model: str
    variant: str
    defines: tuple[str, ...]
    expected: str
    bounds: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run. seen: HOLDS, FAILS, or what kept it from an answer. details: more about the latter."""

    seen: str
    states: int
    seconds: float
    details: str = ""


def _whole(model: str, variant: str, defines: str, bounds: str) -> Run:
    return Run(model, variant, tuple(defines.split()), HOLDS, bounds)


def _mutants(model: str, names: str, defines: str = "") -> list[Run]:
    return [Run(model, name, (name, *defines.split()), FAILS) for name in names.split()]


RUNS = [
    _whole("lease", "one replica", "", "leases of 3, lagging clocks; loads, reconnections, a shutdown, a promotion"),
    _whole("lease", "two replicas", "N=2 BEATS_ONLY=true PROMOTIONS=0", "leases of 3, lagging clocks; only beats"),
    *_mutants("lease", "SWAP_BEAT LATE_CLOCK LONG_USE SHORT_WAIT NO_WAIT EVICT_FIRST", "PROMOTIONS=0"),
    *_mutants("lease", "KEEP_RECORDS NO_REVISION JOIN_LOADS LEAVE_EARLY", "PROMOTIONS=0"),
    *_mutants("lease", "GLANCE_RENEWS", "PROMOTIONS=0"),
    *_mutants("lease", "NO_LIFE TRUST_ROWS TRUST_COMMIT"),
    _whole("rows", "two revocations", "LEASE=3", "leases of 3; one replica, a promotion, mutations of other keys"),
    *_mutants("rows", "SWAP_BEAT FROM_COMMIT HELD ANY_BEAT", "PROMOTIONS=0"),
    *_mutants("rows", "ANY_TIMELINE TRUST_ROWS TRUST_PRESENT"),
    _whole("watch", "one replica", "LEASE=4 CLIENT_LEASE=5", "leases of 4, of clients 5, lagging clocks; a shutdown"),
    _whole("watch", "two messages", "MESSAGES=2 CLIENT_LEASE=2", "leases of 3, of clients 2, lagging clocks"),
    _whole("watch", "two replicas", "REPLICAS=2 LEASE=2 CLIENT_LEASE=2", "leases of 2, of clients 2, lagging clocks"),
    *_mutants("watch", "FROM_RECEIPT ACK_FIRST FORGET_BROKEN NO_MARGIN NO_CAP GRANT_STALE SILENT_RESTART LEAVE_EARLY"),
    *_mutants("watch", "NO_REVISION EARLY_STORE LEASE_FIRST KEEP_RECORDS"),
    *_mutants("watch", "FROM_LATEST", "MESSAGES=2 LEASE=2 CLIENT_LEASE=2"),
    *_mutants("watch", "KEEP_LEASE", "REPLICAS=2 LEASE=2 CLIENT_LEASE=2"),
]

QUICK_RUNS = [
    _whole("lease", "one replica", "PROMOTIONS=0", "leases of 3, lagging clocks; loads, reconnections, a shutdown"),
    *_mutants("lease", "SWAP_BEAT", "PROMOTIONS=0"),
    _whole("rows", "two revocations", "PROMOTIONS=0", "leases of 2; one replica, mutations of other keys"),
    *_mutants("rows", "ANY_BEAT", "PROMOTIONS=0"),
    _whole("watch", "one replica", "", "leases of 3, of clients 4, lagging clocks; a shutdown"),
    *_mutants("watch", "FROM_RECEIPT"),
]


def missing_tools() -> str:
    """What is missing and how to install it, in one line; empty where nothing is."""
    missing = [tool for tool in _PACKAGES if shutil.which(tool) is None]
    if not missing:
        return ""
    packages = " ".join(_PACKAGES[tool] for tool in missing)
    return f"{' and '.join(missing)} cannot be found; on Debian and Ubuntu: apt-get install {packages}"


def outcomes(runs: Sequence[Run]) -> Iterator[tuple[Run, Outcome]]:
    """Every run with its outcome, in their order, as soon as it is there; as many at a time as there are cores."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        yield from zip(runs, pool.map(_check, runs), strict=True)


def _check(run: Run) -> Outcome:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="latchgate-") as folder:
        seen, said = _explore(run, folder)
    states = _STATES.search(said)
    return Outcome(
        seen=seen,
        states=int(float(states[1])) if states else 0,
        seconds=time.monotonic() - began,
        details="" if seen in {HOLDS, FAILS} else said.strip(),
    )


def _explore(run: Run, folder: str) -> tuple[str, str]:
    """What was seen, and what the last command said."""
    said = ""
    for command in (
        ["spin", "-a", *(f"-D{define}" for define in run.defines), str(FOLDER / f"{run.model}.pml")],
        ["cc", "-O1", "-w", "-DSAFETY", f"-DMEMLIM={_MEGABYTES}", "-o", "pan", "pan.c"],
        ["./pan", "-E", f"-m{_DEPTH}"],
    ):
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return "too slow", f"{command[0]} took more than {_SECONDS:.0f} s"
        said = done.stdout + done.stderr
        if done.returncode != 0:
            return "broken", f"{command[0]} ended with {done.returncode}\n{said}"
    return _judge(said), said


def _judge(said: str) -> str:
    """Whether the assertion holds, by what the checker of a model says at its end."""
    if "assertion violated" in said:
        return FAILS
    if "max search depth too small" in said:
        return "too deep"
    if "reached -DMEMLIM bound" in said:
        return "too big"
    return HOLDS if "errors: 0" in said and "Search not completed" not in said else "broken"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table of all runs. Returns the exit code: 1 where anything was not as expected."""
    parser = argparse.ArgumentParser(prog="make model ARGS='…'", description=__doc__, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="a few runs with smaller bounds")
    runs = QUICK_RUNS if parser.parse_args(arguments).quick else RUNS
    if missing := missing_tools():
        print(missing, file=sys.stderr)
        return 1
    print("Every order of steps, with any delays, for ever, within these bounds. A tick is the margin, and how far a")
    print("clock can lag.\n")
    for run in runs:
        if run.bounds:
            print(f"{run.model:<6} {run.variant:<15} {run.bounds}")
    print(f"\n{_HEADING}", flush=True)
    surprises = 0
    for run, outcome in outcomes(runs):
        surprises += outcome.seen != run.expected
        print(_line(run, outcome), flush=True)
    print(f"\n{len(runs)} runs, {surprises} not as expected")
    return 1 if surprises else 0


def _line(run: Run, outcome: Outcome) -> str:
    line = (
        f"{run.model:<6} {run.variant:<15} {run.expected:<8} {outcome.seen:<8} {outcome.states:>10,}"
        f" {outcome.seconds:>7.1f}"
    )
    if outcome.seen != run.expected:
        line += f"  not as expected: spin -a {' '.join(f'-D{define}' for define in run.defines)} {run.model}.pml"
    return f"{line}\n{outcome.details}" if outcome.details else line


if __name__ == "__main__":
    sys.exit(main())
