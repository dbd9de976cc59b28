"""A real PostgreSQL for the tests, and fresh databases on it."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from latchgate_server.storage.migrate import migrate

TEMPLATE = "latchgate_template"


@dataclass
class Postgres:
    """One server. `url` is that of its maintenance database."""

    url: str
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def database_url(self, name: str) -> str:
        """The URL of one of its databases."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    def make_template(self) -> None:
        """Make the migrated database that others are copied from.

        Nothing here outlives a crash, so nothing waits for the disk. Tests that crash PostgreSQL have one of their own.
        """
        self._execute("ALTER SYSTEM SET fsync = off")
        self._execute("SELECT pg_reload_conf()")
        self._execute(f"CREATE DATABASE {TEMPLATE}")
        asyncio.run(migrate(self.database_url(TEMPLATE), lease=3.0))

    def new_database(self, *, migrated: bool = True) -> str:
        """Make a database, migrated or empty, and return its URL."""
        return self._make(f"TEMPLATE {TEMPLATE}" if migrated else "")

    def copy_of(self, database_url: str) -> str:
        """Make a database with what another one has that nobody is connected to, and return its URL."""
        return self._make(f"TEMPLATE {_name_of(database_url)}")

    def drop(self, database_url: str) -> None:
        """Remove one of its databases, whoever is connected to it."""
        self._execute(f"DROP DATABASE {_name_of(database_url)} WITH (FORCE)")

    def _make(self, how: str) -> str:
        name = f"test_{next(self._numbers)}"
        self._execute(f"CREATE DATABASE {name} {how}")
        return self.database_url(name)

    def _execute(self, statement: str) -> None:
        async def run() -> None:
            connection = await asyncpg.connect(self.url)
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        asyncio.run(run())


def _name_of(database_url: str) -> str:
    return urlsplit(database_url).path.removeprefix("/")
