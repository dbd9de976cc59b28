"""The server that client commands call in these tests; each file makes tenants and keys of its own in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from tests.e2e.commands import KEY_STRING, Cli, MadeKey, NewKey, run
from tests.support.postgres import Postgres
from tests.support.server import ServerProcess, environment, make_root_key


@pytest.fixture(scope="session")
def cli_database(postgres: Postgres) -> str:
    return postgres.new_database()


@pytest.fixture(scope="session")
def cli_root_key(cli_database: str) -> str:
    return make_root_key(cli_database)


@pytest.fixture(scope="session")
def cli_server(cli_database: str, cli_root_key: str) -> Iterator[ServerProcess]:
    with ServerProcess(cli_database) as process:
        yield process
    assert not KEY_STRING.search("".join(process.log))


@pytest.fixture(scope="session")
def cli(cli_server: ServerProcess, cli_root_key: str, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    key_file = tmp_path_factory.mktemp("root") / "root.key"
    key_file.write_text(cli_root_key + "\n", encoding="ascii")
    env = environment("") | {
        "LATCHGATE_ADMIN_ADDRESS": cli_server.admin_address,
        "LATCHGATE_VERIFY_ADDRESS": cli_server.verify_address,
        "LATCHGATE_ADMIN_KEY_FILE": str(key_file),
    }
    return Cli(env, cli_root_key.partition(".")[2])


@pytest.fixture(scope="session")
def tenant(cli: Cli) -> str:
    """A tenant for tests that are about keys, on a plan with one capability."""
    cli("plans", "create", "of-keys", "--capability", "exports")
    cli("tenants", "create", "of-keys", "--plan", "of-keys")
    cli("roles", "create", "of-keys", "--tenant", "of-keys", "--permission", "orders.*", "--allow-act-as")
    return "of-keys"


@pytest.fixture
def new_key(cli: Cli, tenant: str) -> NewKey:
    def make(*options: str) -> MadeKey:
        made = cli("keys", "create", "--tenant", tenant, *options, "--output", "json").json
        return MadeKey(made["key"]["key_id"], made["key_string"])

    return make


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> str:
    """The database of a file's own server."""
    return postgres.new_database()


@pytest.fixture(scope="module")
def env(database: str) -> Iterator[Mapping[str, str]]:
    """The environment of an administrator whose server runs, who may walk the audit log; with a tenant `acme`."""
    root_key = make_root_key(database)
    with ServerProcess(database) as server:
        own = environment(database)
        own["LATCHGATE_ADMIN_ADDRESS"] = server.admin_address
        own["LATCHGATE_VERIFY_ADDRESS"] = server.verify_address
        own["LATCHGATE_ADMIN_KEY"] = root_key
        run("tenants", "create", "acme", env=own)
        yield own
