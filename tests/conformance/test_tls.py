"""TLS of both ports: who gets in, and how certificates change hands while the server runs."""

from __future__ import annotations

import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import decision_pb2
from latchgate_server.transport.tls import LOOK_SECONDS
from tests.conformance.house import House
from tests.conformance.wire import code_of
from tests.support.certificates import YESTERDAY, Authority, Pair
from tests.support.check import Check, request
from tests.support.server import Admin, ServerProcess, Verify, environment, open_channel, run_command

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
ADMIN_LIST = pb.ListTenantsRequest(page_size=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder)


@pytest.fixture(scope="module")
def caller(authority: Authority) -> Pair:
    """The certificate of a caller."""
    return authority.issue("caller", "backend.test")


@pytest.fixture(scope="module")
def server(
    module_database: str, authority: Authority, caller: Pair, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server that asks everybody for a certificate, on both ports."""
    config = tmp_path_factory.mktemp("config") / "latchgate.toml"
    config.write_text("")
    settings = {
        **authority.issue("server").settings(),
        "tls_client_ca": str(authority.file),
        "verify_auth": "mtls",
        "admin_client_cert": "require",
        "config": str(config),
    }
    with ServerProcess(module_database, settings, authority.credentials(caller)) as process:
        yield process


def shown(authority: Authority, address: str, caller: Pair | None = None) -> str:
    """The serial number of the certificate that a new connection is shown."""
    context = ssl.create_default_context(cafile=str(authority.file))
    context.set_alpn_protocols(["h2"])
    if caller is not None:
        context.load_cert_chain(caller.cert, caller.key)
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=20) as connection,
        context.wrap_socket(connection, server_hostname="latchgate.test") as secured,
    ):
        certificate = secured.getpeercert()
        assert certificate is not None
        return str(certificate["serialNumber"])


def test_both_ports_serve_those_who_have_a_certificate(root: Admin, verify: Verify, house: House) -> None:
    key = house.key(permissions=["orders.read"])
    assert verify(key.key_string).decision == decision_pb2.DECISION_ALLOW
    house.root.RevokeKey(pb.RevokeKeyRequest(key_id=key.key.key_id))
    assert verify(key.key_string).decision == decision_pb2.DECISION_DENY


@pytest.mark.parametrize("port", ["verify", "admin"])
def test_nobody_else_gets_as_far_as_a_call(
    server: ServerProcess, authority: Authority, root_key: str, port: str, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path)
    address = server.verify_address if port == "verify" else server.admin_address
    for credentials in (
        None,
        authority.credentials(),
        authority.credentials(stranger.issue("stranger")),
        authority.credentials(authority.issue("expired", expires=YESTERDAY)),
    ):
        with open_channel(address, credentials) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            assert code_of(health.Check, health_pb2.HealthCheckRequest(), timeout=20) is UNAVAILABLE
    # A good key is no certificate.
    admin = Admin(server.admin_address, root_key, credentials=authority.credentials())
    assert code_of(admin.ListTenants, ADMIN_LIST) is UNAVAILABLE
    admin.close()


def test_envoy_asks_over_tls_as_well(server: ServerProcess, house: House) -> None:
    check = Check(server.verify_address, server.credentials)
    assert check.ask(request({"x-api-key": house.key().key_string})).allowed
    check.close()


# New certificates.


def test_a_new_certificate_is_taken_over_and_old_connections_live_on(
    server: ServerProcess, authority: Authority, caller: Pair, verify: Verify, root_key: str
) -> None:
    assert verify(root_key).decision == decision_pb2.DECISION_ALLOW
    before = shown(authority, server.verify_address, caller)
    assert shown(authority, server.admin_address, caller) == before
    authority.issue("server")
    began = time.monotonic()
    loaded = server.wait_for("certificate_loaded")
    assert time.monotonic() - began < 10 * LOOK_SECONDS
    assert loaded["certificate"].endswith("server.pem")
    after = shown(authority, server.verify_address, caller)
    assert after != before
    assert shown(authority, server.admin_address, caller) == after
    assert verify(root_key).decision == decision_pb2.DECISION_ALLOW


def test_sighup_takes_it_over_at_once(server: ServerProcess, authority: Authority, caller: Pair) -> None:
    before = shown(authority, server.verify_address, caller)
    authority.issue("server")
    server.signal(signal.SIGHUP)
    server.wait_for("certificate_loaded")
    assert shown(authority, server.verify_address, caller) != before
    server.wait_for("reloaded")


def test_what_cannot_be_served_with_never_replaces_what_can(
    server: ServerProcess, authority: Authority, caller: Pair, folder: Path
) -> None:
    before = shown(authority, server.verify_address, caller)
    whole = (folder / "server.pem").read_bytes()
    (folder / "server.pem").write_bytes(whole[: len(whole) // 2])
    refused = server.wait_for("certificate_refused")
    assert refused["error"] == f"LATCHGATE_TLS_CERT {folder / 'server.pem'} holds no certificate in PEM form"
    assert refused["advice"].startswith("the certificate before stays in use: correct the files")
    assert shown(authority, server.verify_address, caller) == before
    authority.issue("server", expires=YESTERDAY)
    assert "it has expired: renew it" in server.wait_for("certificate_refused")["error"]
    assert shown(authority, server.verify_address, caller) == before
    # A key that arrives before its certificate is no reason to stumble.
    authority.issue("server")
    server.wait_for("certificate_loaded")
    assert shown(authority, server.verify_address, caller) != before


def test_callers_of_another_authority_are_let_in_once_the_client_ca_says_so(
    server: ServerProcess, authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path)
    credentials = authority.credentials(other.issue("caller", "backend.test"))
    health = health_pb2.HealthCheckRequest()
    with open_channel(server.verify_address, credentials) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        assert code_of(stub.Check, health, timeout=20) is UNAVAILABLE
    authority.file.write_bytes(authority.file.read_bytes() + other.file.read_bytes())
    server.signal(signal.SIGHUP)
    server.wait_for("certificate_loaded")
    with open_channel(server.verify_address, credentials) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        assert code_of(stub.Check, health, timeout=20) is grpc.StatusCode.OK


# What else SIGHUP reloads.


def until_reloaded(server: ServerProcess, *settings: str) -> None:
    while server.wait_for("reloaded")["settings"] != [*settings]:
        pass


def test_sighup_takes_over_what_it_can_of_the_settings_and_names_the_rest(server: ServerProcess) -> None:
    config = Path(server.settings["config"])
    check = Check(server.verify_address, server.credentials)
    try:
        config.write_text('lease = "4s"\n[denials.INVALID_API_KEY]\nstatus = 403\ncode = "NO"\nmessage = "No."\n')
        server.signal(signal.SIGHUP)
        until_reloaded(server, "denials")
        assert server.wait_for("restart_needed")["settings"] == ["lease"]
        denied = check.ask(request({"x-api-key": "garbage"}))
        assert (denied.http, denied.body) == (403, '{"Code": "NO", "Message": "No."}')
        config.write_text('lease = "for ever"\n')
        server.signal(signal.SIGHUP)
        assert server.wait_for("reload_refused")["error"].startswith("LATCHGATE_LEASE: ")
        assert check.ask(request({"x-api-key": "garbage"})).http == 403
        config.write_text('log_level = "warning"\n')
        server.signal(signal.SIGHUP)
        while check.ask(request({"x-api-key": "garbage"})).http == 403:
            time.sleep(0.02)
        config.write_text("")
        server.signal(signal.SIGHUP)
        # At `warning` none of the times before was logged: this one is back at `info`.
        until_reloaded(server, "log_level")
    finally:
        check.close()


def test_a_supervisor_has_all_its_workers_reload(
    module_database: str, authority: Authority, root_key: str, tmp_path: Path
) -> None:
    own = Authority(tmp_path)
    settings = {**own.issue("server").settings(), "workers": "2"}
    with ServerProcess(module_database, settings, own.credentials()) as several:
        before = shown(own, several.verify_address)
        own.issue("server")
        several.signal(signal.SIGHUP)
        for _ in range(2):
            several.wait_for("certificate_loaded")
        assert all(shown(own, several.verify_address) != before for _ in range(8))
        verify = Verify(several.verify_address, credentials=several.credentials)
        assert verify(root_key).decision == decision_pb2.DECISION_ALLOW
        verify.close()


def test_a_server_does_not_start_with_what_nobody_accepts(module_database: str, tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("server", expires=YESTERDAY)
    done = run_command("serve", env=environment(module_database, **pair.settings(), workers="2"))
    expected = f"latchgate: no client accepts LATCHGATE_TLS_CERT {pair.cert}: it has expired: renew it\n"
    assert (done.returncode, done.stderr) == (1, expected)
