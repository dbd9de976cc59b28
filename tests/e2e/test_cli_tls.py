"""The commands against a server that speaks TLS and asks who calls: what each needs, and says where it is missing."""

from __future__ import annotations

import json
from subprocess import CompletedProcess

import pytest

from tests.support.certificates import Authority
from tests.support.postgres import Postgres
from tests.support.server import ServerProcess, environment, make_root_key, run_command

Ran = CompletedProcess[str]


@pytest.fixture(scope="module")
def ran(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """What commands came to, by what is tried."""
    database_url = postgres.new_database()
    root_key = make_root_key(database_url)
    folder = tmp_path_factory.mktemp("certificates")
    authority, stranger = Authority(folder), Authority(tmp_path_factory.mktemp("stranger"))
    own = authority.issue("own", "administrator.test")
    settings = {
        **authority.issue("server", "latchgate.test").settings(),
        "tls_client_ca": str(authority.file),
        "verify_auth": "mtls",
        "admin_client_cert": "require",
    }
    certificate = {"client_cert": str(own.cert), "client_key": str(own.key)}
    with ServerProcess(database_url, settings) as server:
        here = environment(
            database_url,
            **settings | {"verify_listen": server.verify_address, "admin_listen": server.admin_address},
        )
        there = {
            "verify_address": server.verify_address,
            "admin_address": server.admin_address,
            "admin_key": root_key,
            "ca": str(authority.file),
            "server_name": "latchgate.test",
            **certificate,
        }

        def elsewhere(*without: str, **others: str) -> dict[str, str]:
            return environment("", **{name: value for name, value in there.items() if name not in without} | others)

        mine = {f"LATCHGATE_{name.upper()}": value for name, value in certificate.items()}
        tried = {
            "list": (("tenants", "list"), elsewhere()),
            "verify": (("verify", "-"), elsewhere()),
            "health": (("health", "--address", server.verify_address), elsewhere()),
            "own health": (("health",), here | mine),
            "doctor": (("doctor", "--output", "json"), here | mine),
            "no certificate": (("tenants", "list"), elsewhere("client_cert", "client_key")),
            "another authority": (("tenants", "list"), elsewhere(ca=str(stranger.file))),
            "another name": (("tenants", "list"), elsewhere("server_name")),
            "plaintext": (("tenants", "list"), elsewhere("ca", "server_name", "client_cert", "client_key")),
            "by halves": (("tenants", "list"), elsewhere("ca")),
            "no file": (("tenants", "list"), elsewhere(ca=str(folder / "nowhere.pem"))),
        }
        return {what: run_command(*arguments, env=env, stdin=root_key) for what, (arguments, env) in tried.items()}


@pytest.mark.parametrize("what", ["list", "verify", "health", "own health"])
def test_a_command_works_over_tls(ran: dict[str, Ran], what: str) -> None:
    assert ran[what].returncode == 0, ran[what]
    assert {"list": "latchgate", "verify": "allow"}.get(what, "SERVING") in ran[what].stdout


def test_the_doctor_looks_at_the_certificate_and_at_both_ports(ran: dict[str, Ran]) -> None:
    findings = {found["check"]: found for found in json.loads(ran["doctor"].stdout)["findings"]}
    assert findings["certificate"]["level"] == "ok"
    assert "server.pem is valid for" in findings["certificate"]["found"]
    assert {findings[port]["level"] for port in ("verify port", "admin port")} == {"ok"}


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("no certificate", "hangs up: where it asks for a certificate, LATCHGATE_CLIENT_CERT and LATCHGATE_CLIENT_KEY"),
        ("another authority", "is not trusted: LATCHGATE_CA names the file of whoever signed it"),
        ("another name", "is for another name: LATCHGATE_SERVER_NAME says for which"),
        ("plaintext", "hangs up: where it speaks TLS, LATCHGATE_CA says whom to trust"),
        ("by halves", "LATCHGATE_SERVER_NAME is set without LATCHGATE_CA, which says whom to trust"),
        ("no file", "nowhere.pem cannot be read: No such file or directory"),
    ],
)
def test_what_is_missing_is_told_in_one_line(ran: dict[str, Ran], what: str, told: str) -> None:
    done = ran[what]
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("latchgate: ")
    assert told in done.stderr
