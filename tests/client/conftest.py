"""A server and what its administrators made, for programs that use the client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from latchgate import AdminClient
from tests.client.blocking import open_admin
from tests.conformance.house import House
from tests.support.postgres import Postgres
from tests.support.server import Admin, ServerProcess, make_root_key


@pytest.fixture(scope="package")
def root_key_and_server(postgres: Postgres) -> Iterator[tuple[str, ServerProcess]]:
    database_url = postgres.new_database()
    root_key = make_root_key(database_url)
    with ServerProcess(database_url) as server:
        yield root_key, server


@pytest.fixture(scope="package")
def server(root_key_and_server: tuple[str, ServerProcess]) -> ServerProcess:
    return root_key_and_server[1]


@pytest.fixture(scope="package")
def house(root_key_and_server: tuple[str, ServerProcess]) -> Iterator[House]:
    root_key, server = root_key_and_server
    root = Admin(server.admin_address, root_key)
    yield House(root)
    root.close()


@pytest.fixture(params=["AdminClient", "AsyncAdminClient"])
def admin(request: pytest.FixtureRequest, root_key_and_server: tuple[str, ServerProcess]) -> Iterator[AdminClient]:
    """The first administrator's client; the one for asyncio is called as if it blocked."""
    root_key, server = root_key_and_server
    with open_admin(request.param, server.admin_address, root_key) as client:
        yield client
