"""`make attack`: every attack on each transport, and what came of it; exit with 1 where somebody was not served.

make attack ARGS='--amount 10 --only rapid_reset,ping_flood'
"""

# ruff: noqa: T201 - it reports to whoever ran it
from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.attack.attacks import ATTACKS
from tests.attack.bystander import Bystander, memory
from tests.attack.tls import TLS_ATTACKS
from tests.consistency.torture.cluster import own_postgres
from tests.support.certificates import Authority
from tests.support.server import ServerProcess, environment, make_root_key, run_command


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="make attack ARGS='…'", description=__doc__, allow_abbrev=False)
    parser.add_argument("--amount", type=int, default=5, help="how much of each; 1 is what the tests do")
    parser.add_argument("--only", default="", help="which, with commas between")
    parser.add_argument("--transports", default="native,grpcio,tls", help="tls: grpcio, with attacks of its own")
    parser.add_argument("--memory", default="512MiB", help="LATCHGATE_MEMORY_LIMIT; four fifths of it are the mark")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="latchgate-"))
    failed = False
    print(f"{'':8}{'attack':24}{'sent':>9}{'seconds':>9}{'others served':>15}{'slowest':>9}{'grown by':>10}")
    try:
        with own_postgres(folder) as postgres:
            done = run_command("migrate", env=environment(postgres.url))
            assert done.returncode == 0, done.stderr
            key = make_root_key(postgres.url)
            for transport in options.transports.split(","):
                attacks = TLS_ATTACKS if transport == "tls" else ATTACKS
                with _server(postgres.url, transport, options.memory, folder) as server:
                    for name in options.only.split(",") if options.only else attacks:
                        if name in attacks:
                            failed |= _attack(server, key, transport, name, options.amount)
                    failed |= any("Traceback" in line for line in server.log)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return int(failed)


def _server(url: str, transport: str, memory: str, folder: Path) -> ServerProcess:
    if transport != "tls":
        return ServerProcess(url, {"transport": transport, "memory_limit": memory})
    authority = Authority(folder)
    settings = {**authority.issue("server").settings(), "memory_limit": memory}
    return ServerProcess(url, settings, authority.credentials())


def _attack(server: ServerProcess, key: str, transport: str, name: str, amount: int) -> bool:
    began = time.monotonic()
    with Bystander(server, key) as bystander:
        sent = (TLS_ATTACKS if transport == "tls" else ATTACKS)[name](server.verify_address, amount)
        took = time.monotonic() - began
        bystander.ask()
    print(
        f"{transport:8}{name:24}{sent:>9,}{took:>9.1f}{len(bystander.took):>15}{bystander.longest * 1e3:>6.0f} ms"
        f"{bystander.grown:>6.0f} MiB  (now {memory(server.pid):.0f})",
        *([f"{bystander.resets} resets"] if bystander.resets else []),
        *bystander.failed[:1],
        flush=True,
    )
    return bool(bystander.failed)


if __name__ == "__main__":
    sys.exit(main())
