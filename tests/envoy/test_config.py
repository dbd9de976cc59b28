"""`latchgate envoy-config`: what it prints is what the real Envoy loads."""

from __future__ import annotations

import pytest
import yaml
from typer.testing import CliRunner

from latchgate_server.cli import application
from tests.support.envoy import printed_config, validate
from tests.support.server import environment, run_command


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--latchgate", "unix:/run/latchgate/verify.sock", "--upstream", "orders.internal:8080"),
        ("--listen", "[::]:8443", "--admin", "[::1]:9000", "--latchgate", "[2001:db8::1]:50051"),
        ("--key-variable", "LATCHGATE_VERIFY_KEY"),
    ],
)
def test_envoy_loads_what_is_printed(options: tuple[str, ...]) -> None:
    assert validate(printed_config(*options)) == ""


def test_the_address_of_latchgate_is_that_of_other_commands() -> None:
    env = environment("") | {"LATCHGATE_VERIFY_ADDRESS": "192.0.2.1:4711"}
    printed = run_command("envoy-config", env=env).stdout
    (cluster,) = [c for c in yaml.safe_load(printed)["static_resources"]["clusters"] if c["name"] == "latchgate"]
    address = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
    assert address == {"socket_address": {"address": "192.0.2.1", "port_value": 4711}}


@pytest.mark.parametrize("option", ["--listen", "--upstream", "--latchgate", "--admin"])
@pytest.mark.parametrize("address", ["localhost", ":80", "a:b", "a:70000", "a:1}"])
def test_a_malformed_address_is_wrong_usage(option: str, address: str) -> None:
    ran = CliRunner().invoke(application(), ["envoy-config", option, address])
    assert ran.exit_code == 2
    assert "is not HOST:PORT" in ran.output


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--cert", "c.pem"), "a certificate needs --cert and --key"),
        (("--ca", "ca.pem", "--key", "k.pem"), "a certificate needs --cert and --key"),
        (("--cert", "c.pem", "--key", "k.pem"), "it needs --ca"),
        (("--server-name", "latchgate.test"), "it needs --ca"),
        (("--key-variable", "A B"), "is no name of a variable"),
    ],
)
def test_tls_by_halves_is_wrong_usage(options: tuple[str, ...], told: str) -> None:
    ran = CliRunner().invoke(application(), ["envoy-config", *options])
    assert ran.exit_code == 2
    assert told in ran.output


def test_a_fault_in_a_configuration_is_seen() -> None:
    assert "status_on_errors" in validate(printed_config().replace("status_on_error:", "status_on_errors:"))
