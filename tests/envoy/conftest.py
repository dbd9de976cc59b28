"""One Envoy in front of one upstream for the tests of this folder, with two Latchgates: as it comes, and configured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.house import House
from tests.support import envoy as support
from tests.support.envoy import Config, Envoy
from tests.support.postgres import Postgres
from tests.support.server import Admin, ServerProcess, make_root_key
from tests.support.upstream import Upstream

# What the second Latchgate has of its own.
OTHER_SETTINGS = {
    "credential_sources": "basic,pair:x-key-id,x-key-secret,query:api_key,x-api-key",
    "client_ip_header": "X-Client-IP",
    "denial_detail": "uniform",
}
OTHER_FILE = """
[denials]
code_field = "error"
message_field = "détail"

[denials.IP_NOT_AUTHORIZED]
status = 409
code = "elsewhere"
message = "Not from here."
"""


@pytest.fixture(scope="session")
def envoy_database(postgres: Postgres) -> str:
    return postgres.new_database()


@pytest.fixture(scope="session")
def envoy_root_key(envoy_database: str) -> str:
    return make_root_key(envoy_database)


@pytest.fixture(scope="session")
def latchgate(envoy_database: str, envoy_root_key: str) -> Iterator[ServerProcess]:
    with ServerProcess(envoy_database) as process:
        yield process


@pytest.fixture(scope="session")
def other_latchgate(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """With a database of its own: two on one would each enforce half of a limit."""
    file = tmp_path_factory.mktemp("other") / "latchgate.toml"
    file.write_text(OTHER_FILE, encoding="utf-8")
    with ServerProcess(postgres.new_database(), {**OTHER_SETTINGS, "config": str(file)}) as process:
        yield process


@pytest.fixture(scope="session")
def other_house(other_latchgate: ServerProcess) -> Iterator[House]:
    admin = Admin(other_latchgate.admin_address, make_root_key(other_latchgate.database_url))
    yield House(admin)
    admin.close()


@pytest.fixture(scope="session")
def house(latchgate: ServerProcess, envoy_root_key: str) -> Iterator[House]:
    admin = Admin(latchgate.admin_address, envoy_root_key)
    yield House(admin)
    admin.close()


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    with Upstream() as service:
        yield service


@pytest.fixture(scope="session")
def envoy(latchgate: ServerProcess, other_latchgate: ServerProcess, upstream: Upstream) -> Iterator[Envoy]:
    """Listeners: `api`, as `latchgate envoy-config` has it; the others say in `_listeners` what is different."""
    config = support.bootstrap(upstream.address, latchgate.verify_address)
    support.add_cluster(config, "latchgate", "other_latchgate", other_latchgate.verify_address)
    grpc_upstream = support.add_cluster(config, "latchgate", "grpc_upstream", upstream.grpc_address)
    del grpc_upstream["health_checks"]
    _listeners(config)
    with Envoy(config) as process:
        yield process


def _listeners(config: Config) -> None:
    (api,) = config["static_resources"]["listeners"]
    support.add_route(api, "/test.Echo/", {}, "grpc_upstream")
    for prefix, extensions in (
        ("/test.Echo/Admin", {"permissions": "orders.admin"}),
        ("/export", {"capability": "export"}),
        ("/import", {"capability": "import"}),
        ("/of-another", {"tenant": "another"}),
        ("/berlin", {"resource": "sites/berlin/orders"}),
        ("/paris", {"resource": "sites/paris/orders"}),
        ("/costs/0", {"cost": "0"}),
        ("/costs/7", {"cost": "7"}),
        ("/misspelt", {"permission": "orders.admin"}),
    ):
        support.add_route(api, prefix, extensions, "grpc_upstream" if "Echo" in prefix else "upstream")

    # Headers come one by one.
    support.ext_authz(support.add_listener(config, "raw"))["encode_raw_headers"] = True

    # Nothing but Latchgate protects the upstream, and no error may let anybody in.
    bare = support.add_listener(config, "bare")
    filters = support.manager(bare)["http_filters"]
    filters[:] = [filter_ for filter_ in filters if "header_mutation" not in filter_["name"]]
    support.manager(bare)["common_http_protocol_options"]["headers_with_underscores_action"] = "ALLOW"
    support.ext_authz(bare)["failure_mode_allow"] = True

    # A load balancer tells who is connected.
    proxied = support.add_listener(config, "proxied")
    kind = "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"
    proxied["listener_filters"] = [
        {
            "name": "envoy.filters.listener.proxy_protocol",
            "typed_config": {"@type": f"type.googleapis.com/{kind}", "allow_requests_without_proxy_protocol": True},
        }
    ]

    support.add_listener(config, "other", "other_latchgate")

    # Behind a proxy that adds the client to x-forwarded-for.
    hops = support.add_listener(config, "other_hops", "other_latchgate")
    support.manager(hops)["xff_num_trusted_hops"] = 1


@pytest.fixture(scope="session")
def checkout() -> Path:
    return support.ROOT
