"""The settings that say who may ask: what cannot be meant is refused at start, in one line that says what to set."""

from __future__ import annotations

from pathlib import Path

import pytest

from latchgate_server.config import Settings, SettingsProblem, load_settings
from latchgate_server.transport.server import NoSuchTransport, Transport, choose

TLS = {"tls_cert": "cert.pem", "tls_key": "key.pem"}
CA = {"tls_client_ca": "ca.pem"}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"tls_cert": "c"}, ["LATCHGATE_TLS_CERT is set without LATCHGATE_TLS_KEY: TLS needs both"]),
        ({"tls_key": "k"}, ["LATCHGATE_TLS_KEY is set without LATCHGATE_TLS_CERT: TLS needs both"]),
        (
            {**TLS, "transport": "native"},
            [
                (
                    "LATCHGATE_TRANSPORT=native has no TLS: set LATCHGATE_TRANSPORT=auto, which takes grpcio where "
                    "LATCHGATE_TLS_CERT is set, or leave LATCHGATE_TLS_CERT and LATCHGATE_TLS_KEY out"
                )
            ],
        ),
        (
            {"verify_auth": "mtls"},
            [
                (
                    "LATCHGATE_VERIFY_AUTH=mtls needs LATCHGATE_TLS_CERT, LATCHGATE_TLS_KEY, LATCHGATE_TLS_CLIENT_CA; "
                    "LATCHGATE_TLS_CLIENT_CA is who signs the callers' certificates"
                )
            ],
        ),
        (
            {**TLS, "verify_auth": "mtls", "admin_client_cert": "require"},
            [
                f"LATCHGATE_{name} needs LATCHGATE_TLS_CLIENT_CA; "
                "LATCHGATE_TLS_CLIENT_CA is who signs the callers' certificates"
                for name in ("VERIFY_AUTH=mtls", "ADMIN_CLIENT_CERT=require")
            ],
        ),
        (
            {**TLS, **CA},
            [
                (
                    "LATCHGATE_TLS_CLIENT_CA is set, but no port asks callers for a certificate: set "
                    "LATCHGATE_VERIFY_AUTH=mtls, LATCHGATE_ADMIN_CLIENT_CERT=require or both"
                )
            ],
        ),
        ({"verify_auth": "Key"}, ["LATCHGATE_VERIFY_AUTH: Input should be 'off', 'key' or 'mtls'"]),
    ],
)
def test_what_cannot_be_meant_is_refused(given: dict[str, str], expected: list[str]) -> None:
    with pytest.raises(SettingsProblem) as refused:
        load_settings(**given)
    assert str(refused.value).splitlines() == expected


@pytest.mark.parametrize(
    "given",
    [
        {},
        TLS,
        {"verify_auth": "key"},
        {**TLS, "verify_auth": "key", "transport": "grpcio"},
        {**TLS, **CA, "verify_auth": "mtls"},
        {**TLS, **CA, "admin_client_cert": "require"},
        {"tls_cert": "", "tls_key": "", "tls_client_ca": ""},
    ],
)
def test_what_can_be_meant_is_accepted(given: dict[str, str]) -> None:
    assert isinstance(load_settings(**given), Settings)


def test_plaintext_stays_at_home_and_tls_need_not() -> None:
    elsewhere = {"verify_listen": "0.0.0.0:50051", "admin_listen": "0.0.0.0:50052"}
    load_settings(**elsewhere, **TLS).require_local_listeners()
    load_settings(verify_listen="unix:/run/x", admin_listen="[::1]:1").require_local_listeners()
    with pytest.raises(SettingsProblem, match="set LATCHGATE_TLS_CERT and LATCHGATE_TLS_KEY, or put a TLS proxy"):
        load_settings(**elsewhere, verify_auth="key").require_local_listeners()


def test_auto_takes_grpcio_for_tls() -> None:
    assert choose(Transport.AUTO, with_tls=False) is Transport.NATIVE
    assert choose(Transport.AUTO, with_tls=True) is Transport.GRPCIO
    assert choose(Transport.GRPCIO, with_tls=True) is Transport.GRPCIO
    with pytest.raises(NoSuchTransport, match="no TLS"):
        choose(Transport.NATIVE, with_tls=True)
