"""`latchgate dev`: everything on one machine, under one folder."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
from collections.abc import Callable
from pathlib import Path

from pydantic import SecretStr

from latchgate_server.bootstrap import Addresses, initialize, run_server
from latchgate_server.config import Settings
from latchgate_server.core.ports import Entropy
from latchgate_server.embedded import EmbeddedProblem, only_user_of, running_postgres
from latchgate_server.hashing import PEPPER_BYTES
from latchgate_server.storage.migrate import migrate
from latchgate_server.system import SystemEntropy

POSTGRES_FOLDER = "postgres"
PEPPER_FILE = "pepper"
ROOT_KEY_FILE = "root.key"


def run(data_dir: Path, settings: Settings, announce: Callable[[Addresses, Path], None]) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP with everything under `data_dir`, which is made on the first start.

    settings: for all but the database and the pepper. announce: told where it listens, and the folder.
    Raises EmbeddedProblem, and what bootstrap.serve raises.
    """
    # Outside of the event loop too, no signal must leave the database running.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    data_dir = data_dir.resolve()
    data_dir.mkdir(parents=True, exist_ok=True)
    with only_user_of(data_dir):
        _ensure_pepper(data_dir, SystemEntropy())
        with running_postgres(data_dir / POSTGRES_FOLDER) as database_url:
            own = settings.model_copy(
                update={
                    "database_url": SecretStr(database_url),
                    "pepper": SecretStr(""),
                    "pepper_file": data_dir / PEPPER_FILE,
                    "drain_delay": 0.0,
                    "tls_connection_age": 0.0,
                }
            )
            asyncio.run(_prepare(own, data_dir))
            run_server(own, lambda addresses: announce(addresses, data_dir), on_terminal=True)


async def _prepare(settings: Settings, data_dir: Path) -> None:
    await migrate(settings.require_database_url(), settings.lease)
    await initialize(settings, lambda key_string: _write_secret(data_dir / ROOT_KEY_FILE, key_string))


def _ensure_pepper(data_dir: Path, entropy: Entropy) -> None:
    pepper_file = data_dir / PEPPER_FILE
    if pepper_file.exists():
        return
    if (data_dir / POSTGRES_FOLDER / "PG_VERSION").exists():
        raise EmbeddedProblem(
            f"{pepper_file} is gone, and no key in {data_dir / POSTGRES_FOLDER} verifies without it; "
            "put it back, or remove the folder to start anew"
        )
    _write_secret(pepper_file, base64.b64encode(entropy.bytes(PEPPER_BYTES)).decode("ascii"))


def _write_secret(path: Path, secret: str) -> None:
    """Write a file that only its owner can read; whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secret + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
