"""Envoy in front of a verify port that asks who calls: over TLS, with a certificate, with a key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.house import House
from tests.support import envoy as support
from tests.support.certificates import Authority, Pair
from tests.support.envoy import Envoy, get
from tests.support.postgres import Postgres
from tests.support.server import Admin, ServerProcess, make_root_key
from tests.support.upstream import Upstream

KEY_VARIABLE = "LATCHGATE_VERIFY_KEY"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def own(authority: Authority) -> Pair:
    """Envoy's certificate."""
    return authority.issue("envoy", "envoy.test")


@pytest.fixture(scope="module", params=["key", "mtls"])
def secured(request: pytest.FixtureRequest, postgres: Postgres, authority: Authority) -> Iterator[ServerProcess]:
    settings = {**authority.issue("server").settings(), "verify_auth": request.param}
    if request.param == "mtls":
        settings["tls_client_ca"] = str(authority.file)
    with ServerProcess(postgres.new_database(), settings, authority.credentials()) as process:
        yield process


@pytest.fixture(scope="module")
def secured_house(secured: ServerProcess) -> Iterator[House]:
    root = Admin(secured.admin_address, make_root_key(secured.database_url), credentials=secured.credentials)
    yield House(root)
    root.close()


def options(server: ServerProcess, authority: Authority, own: Pair) -> tuple[str, ...]:
    """What `latchgate envoy-config` is told of the server."""
    by = {
        "key": ("--key-variable", KEY_VARIABLE),
        "mtls": ("--cert", str(own.cert), "--key", str(own.key)),
    }[server.settings["verify_auth"]]
    return ("--ca", str(authority.file), "--server-name", "latchgate.test", *by)


def test_envoy_says_who_it_is_and_is_answered(
    secured: ServerProcess, secured_house: House, upstream: Upstream, authority: Authority, own: Pair
) -> None:
    config = support.bootstrap(upstream.address, secured.verify_address, *options(secured, authority, own))
    caller = secured_house.key(permissions=["latchgate.verify"]).key_string
    key = secured_house.key(owner="ada").key_string
    with Envoy(config, {KEY_VARIABLE: caller}) as envoy:
        allowed = get(envoy.port(), "/orders", ("x-api-key", key))
        assert allowed.status == 200
        assert get(envoy.port(), "/orders", ("x-api-key", f"{key}x")).json["Code"] == "INVALID_SECRET"
        assert caller not in envoy.admin("/config_dump"), "the key is in Envoy's environment alone"


def test_an_envoy_that_cannot_say_who_it_is_lets_nobody_in(
    secured: ServerProcess, secured_house: House, upstream: Upstream, authority: Authority, tmp_path: Path
) -> None:
    """Not even where it fails open, but for one that cannot connect at all."""
    config = support.bootstrap(upstream.address, secured.verify_address, "--ca", str(authority.file))
    (api,) = config["static_resources"]["listeners"]
    by_key = secured.settings["verify_auth"] == "key"
    support.ext_authz(api)["failure_mode_allow"] = by_key
    key = secured_house.key().key_string
    with Envoy(config) as envoy:
        reply = get(envoy.port(), "/orders", ("x-api-key", key))
        assert (reply.status, reply.json["Code"] if by_key else "") == ((500, "MISCONFIGURED") if by_key else (503, ""))


def test_an_impostor_with_a_certificate_of_the_same_authority_is_not_asked(
    secured: ServerProcess, secured_house: House, upstream: Upstream, authority: Authority, own: Pair
) -> None:
    told = [*options(secured, authority, own)]
    told[told.index("latchgate.test")] = "verify.elsewhere.test"
    config = support.bootstrap(upstream.address, secured.verify_address, *told)
    with Envoy(config, {KEY_VARIABLE: secured_house.key(permissions=["latchgate.verify"]).key_string}) as envoy:
        assert get(envoy.port(), "/orders", ("x-api-key", secured_house.key().key_string)).status == 503
