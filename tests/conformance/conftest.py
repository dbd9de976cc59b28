"""A running server that the tests of one file share; each test makes tenants and keys of its own in it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.conformance.house import House
from tests.support.certificates import Authority
from tests.support.postgres import Postgres
from tests.support.server import Admin, ServerProcess, Verify, make_root_key


@dataclass(frozen=True)
class Deployment:
    """A database with its first administrator, which the databases of all files are copied from."""

    database_url: str
    root_key: str


@pytest.fixture(scope="session")
def deployment(postgres: Postgres) -> Deployment:
    """Made by `latchgate init`, once for all files."""
    database_url = postgres.new_database()
    return Deployment(database_url, make_root_key(database_url))


@pytest.fixture(scope="module")
def module_database(postgres: Postgres, deployment: Deployment) -> Iterator[str]:
    """The database of this file's server."""
    database_url = postgres.copy_of(deployment.database_url)
    yield database_url
    # One that is gone need not be written to disk when PostgreSQL stops.
    postgres.drop(database_url)


@pytest.fixture(scope="session")
def root_key(deployment: Deployment) -> str:
    """The key string of the first administrator."""
    return deployment.root_key


@pytest.fixture(scope="module")
def transport() -> str:
    """Whose HTTP/2 the server speaks: LATCHGATE_TRANSPORT, or `tls` for TLS, which is grpcio's.

    What the server chooses by itself, but for files that list their TRANSPORTS. LATCHGATE_TEST_TRANSPORT names one for
    all files.
    """
    return os.environ.get("LATCHGATE_TEST_TRANSPORT", "auto")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a file once for each of its TRANSPORTS."""
    transports = getattr(metafunc.module, "TRANSPORTS", None)
    if transports and "transport" in metafunc.fixturenames and "LATCHGATE_TEST_TRANSPORT" not in os.environ:
        metafunc.parametrize("transport", transports, scope="module")


@pytest.fixture(scope="module")
def server(
    module_database: str, root_key: str, transport: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server, started as a user starts it."""
    process = ServerProcess(module_database, {"transport": transport})
    if transport == "tls":
        authority = Authority(tmp_path_factory.mktemp("certificates"))
        process = ServerProcess(module_database, authority.issue("server").settings(), authority.credentials())
    with process:
        yield process


@pytest.fixture(scope="module")
def root(server: ServerProcess, root_key: str) -> Iterator[Admin]:
    """AdminService as the first administrator."""
    admin = Admin(server.admin_address, root_key, credentials=server.credentials)
    yield admin
    admin.close()


@pytest.fixture(scope="module")
def verify(server: ServerProcess) -> Iterator[Verify]:
    """VerifyService."""
    stub = Verify(server.verify_address, credentials=server.credentials)
    yield stub
    stub.close()


@pytest.fixture(scope="module")
def house(root: Admin) -> House:
    """Makes what a test needs."""
    return House(root)


@pytest.fixture(scope="session")
def fresh_id() -> Callable[[str], str]:
    """Ids that no other test has."""
    numbers = itertools.count(1)
    return lambda prefix: f"{prefix}-{next(numbers)}"
