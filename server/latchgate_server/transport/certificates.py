"""The certificate files of the server: read, and tried out before anybody is shown them."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_CERT, _KEY, _CLIENT_CA = "LATCHGATE_TLS_CERT", "LATCHGATE_TLS_KEY", "LATCHGATE_TLS_CLIENT_CA"
# More than any chain of certificates has, and little enough to read by mistake.
_FILE_BYTES = 1024 * 1024
_ADVICE = {
    "certificate has expired": "it has expired: renew it",
    "certificate is not yet valid": "it is not valid yet: see to this machine's clock, or have it issued anew",
}

Stamp = Sequence[tuple[int, ...] | None]
"""Of each file what changes when it does; None where it is not there."""


class CertificateProblem(Exception):
    """The files cannot be served with; the message is one line that names the setting, and holds nothing of a key."""


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where they are, in PEM form.

    cert: the server's certificate, then those between it and its issuer. client_ca: who signs the certificates of
    callers; None where none is asked for.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None

    def stamp(self) -> Stamp:
        """What the files are like now."""
        return [_stamp(path) for path in (self.cert, self.key, self.client_ca) if path is not None]


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files that were read and tried out.

    expire_time: when the server's certificate expires, in Unix seconds. name: one of the names that it is for.
    """

    chain: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None
    expire_time: float
    name: str


def load(files: CertificateFiles) -> Certificates:
    """Read the files, and see whether a client would accept what they hold. Raises CertificateProblem."""
    before = files.stamp()
    chain, key = _read(_CERT, files.cert), _read(_KEY, files.key)
    client_ca = None if files.client_ca is None else _read(_CLIENT_CA, files.client_ca)
    _require_certificates(_CERT, files.cert, chain)
    if files.client_ca is not None and client_ca is not None:
        _require_certificates(_CLIENT_CA, files.client_ca, client_ca)
    if b"ENCRYPTED" in key:
        raise CertificateProblem(f"{_KEY} {files.key} is encrypted, and nobody is there to type its passphrase")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        server.load_cert_chain(files.cert, files.key, password="")
    except ssl.SSLError as error:
        raise CertificateProblem(_told(error, files)) from None
    if files.stamp() != before:
        raise CertificateProblem(f"{_CERT} {files.cert} or {_KEY} {files.key} changed while they were read")
    told = _rehearse(server, chain, files)
    names = [value for kind, value in told.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
    return Certificates(chain, key, client_ca, ssl.cert_time_to_seconds(told["notAfter"]), names[0] if names else "")


def _read(setting: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_FILE_BYTES)
    except OSError as error:
        raise CertificateProblem(f"{setting} {path} cannot be read: {error.strerror}") from None


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _require_certificates(setting: str, path: Path, text: bytes) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=_ascii(text))
    except (ssl.SSLError, ValueError):
        raise CertificateProblem(f"{setting} {path} holds no certificate in PEM form") from None


def _ascii(text: bytes) -> str:
    """PEM without what people wrote between the certificates."""
    return text.decode("ascii", "ignore")


def _told(error: ssl.SSLError, files: CertificateFiles) -> str:
    if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
        return f"the key in {_KEY} {files.key} is not that of the certificate in {_CERT} {files.cert}"
    if error.reason and error.reason.endswith(("_TOO_SMALL", "_TOO_WEAK")):
        return f"{_CERT} {files.cert} is too weak: {error.reason.replace('_', ' ').lower()}"
    return f"{_KEY} {files.key} holds no private key in PEM form"


def _rehearse(server: ssl.SSLContext, chain: bytes, files: CertificateFiles) -> dict[str, Any]:
    """What a client is told that trusts this very certificate, without a network in between."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(cadata=_ascii(chain))
    forth, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(back, forth)
    answering = server.wrap_bio(forth, back, server_side=True)
    try:
        for side in (asking, answering, asking, answering):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    except ssl.SSLCertVerificationError as error:
        advice = _ADVICE.get(error.verify_message, error.verify_message)
        raise CertificateProblem(f"no client accepts {_CERT} {files.cert}: {advice}") from None
    except ssl.SSLError as error:
        raise CertificateProblem(f"TLS does not work with {_CERT} {files.cert}: {error.reason}") from None
    told = asking.getpeercert()
    assert told is not None, "else the handshake had failed"
    return told
