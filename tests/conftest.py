"""What tests of every kind share: one PostgreSQL for the whole run, a fresh database for whoever asks."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from latchgate_server.embedded import running_postgres
from tests.support.postgres import Postgres
from tests.support.server import make_root_key

HERE = Path(__file__).parent
FIRST = ("consistency", "e2e", "envoy", "reliability", "attack", "fuzz", "limits", "client", "conformance")
"""The folders whose files take longest."""


def pytest_configure(config: pytest.Config) -> None:
    """Let the many processes that tests start compile the libraries once, also where Python is told to keep nothing.

    It is kept with pytest's own cache, in place of beside the files. Workers inherit the environment.
    """
    if not hasattr(config, "workerinput") and config.pluginmanager.has_plugin("cacheprovider"):
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(config.cache.mkdir("bytecode"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with files that take long, so that at the end no process waits for another that is still busy with one."""

    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(HERE).parts[0]
        return FIRST.index(folder) if folder in FIRST else len(FIRST)

    items.sort(key=place)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The PostgreSQL server of this run. Its folder has a short path: a Unix socket's is limited to 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="latchgate-"))
    try:
        with running_postgres(folder / "postgres") as url:
            server = Postgres(url)
            server.make_template()
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def module_database(postgres: Postgres) -> str:
    """A migrated database that the tests of one file share."""
    return postgres.new_database()


@pytest.fixture(scope="module")
def root_key(module_database: str) -> str:
    """The key string of its first administrator."""
    return make_root_key(module_database)


@pytest.fixture
def database_url(postgres: Postgres) -> str:
    """A migrated database of the test's own."""
    return postgres.new_database()
