"""Certificate files are tried out before anybody is shown them, and what is wrong is told in one line."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from latchgate_server.transport.certificates import CertificateFiles, CertificateProblem
from latchgate_server.transport.tls import check
from tests.support.certificates import NAMES, YESTERDAY, Authority, Pair

OTHER_KEY = "the key in LATCHGATE_TLS_KEY {key} is not that of the certificate in LATCHGATE_TLS_CERT {cert}"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def files(pair: Pair, client_ca: Path | None = None) -> CertificateFiles:
    return CertificateFiles(pair.cert, pair.key, client_ca)


def test_a_good_pair_tells_its_name_and_when_it_expires(authority: Authority) -> None:
    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    certificates = check(files(authority.issue("server", expires=expires), authority.file))
    assert certificates.expire_time == expires.timestamp()
    assert certificates.name in NAMES
    assert certificates.client_ca == authority.file.read_bytes()
    assert b"PRIVATE KEY" in certificates.key
    assert "PRIVATE KEY" not in repr(certificates)


def missing(pair: Pair) -> None:
    pair.key.unlink()


def no_certificate(pair: Pair) -> None:
    pair.cert.write_text("nonsense")


def empty_certificate(pair: Pair) -> None:
    pair.cert.write_text("")


def no_key(pair: Pair) -> None:
    pair.key.write_bytes(pair.cert.read_bytes())


def anothers_key(pair: Pair) -> None:
    pair.key.write_bytes(Authority(pair.key.parent).issue("other").key.read_bytes())


def expired(pair: Pair) -> None:
    old = Authority(pair.key.parent).issue("old", expires=YESTERDAY)
    pair.cert.write_bytes(old.cert.read_bytes())
    pair.key.write_bytes(old.key.read_bytes())


def encrypted_key(pair: Pair) -> None:
    key = load_pem_private_key(pair.key.read_bytes(), None)
    sealed = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase"))
    pair.key.write_bytes(sealed)


def a_key_that_grpc_does_not_know(pair: Pair) -> None:
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "latchgate.test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("latchgate.test")]), critical=False)
        .sign(key, None)
    )
    pair.cert.write_bytes(certificate.public_bytes(Encoding.PEM))
    pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (missing, "LATCHGATE_TLS_KEY {key} cannot be read: No such file or directory"),
        (no_certificate, "LATCHGATE_TLS_CERT {cert} holds no certificate in PEM form"),
        (empty_certificate, "LATCHGATE_TLS_CERT {cert} holds no certificate in PEM form"),
        (no_key, "LATCHGATE_TLS_KEY {key} holds no private key in PEM form"),
        (
            anothers_key,
            "the key in LATCHGATE_TLS_KEY {key} is not that of the certificate in LATCHGATE_TLS_CERT {cert}",
        ),
        (expired, "no client accepts LATCHGATE_TLS_CERT {cert}: it has expired: renew it"),
        (encrypted_key, "LATCHGATE_TLS_KEY {key} is encrypted, and nobody is there to type its passphrase"),
        (
            a_key_that_grpc_does_not_know,
            "gRPC cannot serve with LATCHGATE_TLS_CERT {cert}: an RSA key, or an EC key on P-256 or P-384, works",
        ),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_cannot_be_served_with_is_refused(
    authority: Authority, spoil: Callable[[Pair], None], problem: str
) -> None:
    pair = authority.issue("server")
    spoil(pair)
    expected = problem.format(cert=pair.cert, key=pair.key)
    with pytest.raises(CertificateProblem, match=f"^{re.escape(expected)}$"):
        check(files(pair))


def test_a_client_ca_that_is_none_is_refused(authority: Authority, tmp_path: Path) -> None:
    pair, nothing = authority.issue("server"), tmp_path / "nothing.pem"
    nothing.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    with pytest.raises(CertificateProblem, match=r"^LATCHGATE_TLS_CLIENT_CA .* holds no certificate in PEM form$"):
        check(files(pair, nothing))
    with pytest.raises(CertificateProblem, match=r"^LATCHGATE_TLS_CLIENT_CA .* cannot be read: Is a directory$"):
        check(files(pair, tmp_path))
