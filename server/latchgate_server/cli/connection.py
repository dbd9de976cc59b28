"""How a command reaches a server: over TLS where the environment says whom to trust, and what to do where it fails."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from latchgate_server.cli.failures import fail
from latchgate_server.transport.certificates import CertificateFiles, CertificateProblem, load

CA = "LATCHGATE_CA"
SERVER_NAME = "LATCHGATE_SERVER_NAME"
CLIENT_CERT = "LATCHGATE_CLIENT_CERT"
CLIENT_KEY = "LATCHGATE_CLIENT_KEY"
PUBLIC = "public"
"""In place of a file: the authorities that browsers trust, which gRPC comes with."""

_UNTRUSTED, _OTHER_NAME = "CERTIFICATE_VERIFY_FAILED", "Hostname Verification"
_NO_TLS, _CLOSED = "WRONG_VERSION_NUMBER", "Socket closed"


def open_channel(address: str, own: CertificateFiles | None = None) -> grpc.Channel:
    """A channel to a server. Proxies are for the web; administrators' keys do not go through them.

    own: the certificate of this machine's own server, trusted where the environment says nothing else.
    Ends the command where a file cannot be read.
    """
    options: list[tuple[str, Any]] = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1)]
    if not is_secure(own):
        return grpc.insecure_channel(address, options=options)
    trusted, name = _own(own) if own is not None and not os.environ.get(CA) else (_trusted(), "")
    if name := os.environ.get(SERVER_NAME) or name:
        options.append(("grpc.ssl_target_name_override", name))
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(trusted, *_client_certificate()), options)


def is_secure(own: CertificateFiles | None = None) -> bool:
    """Whether calls go over TLS. Ends the command where the environment asks for it by halves."""
    if os.environ.get(CA) or own is not None:
        return True
    given = [name for name in (SERVER_NAME, CLIENT_CERT, CLIENT_KEY) if os.environ.get(name)]
    if given:
        # Whoever sets one of them believes that the connection is private.
        fail(f"{given[0]} is set without {CA}, which says whom to trust: a file in PEM form, or `{PUBLIC}`")
    return False


def tls_advice(address: str, details: str, own: CertificateFiles | None = None) -> str:
    """What to do about a connection that failed for its TLS, or for want of it; empty: TLS is not what is wrong.

    own: as for `open_channel`.
    """
    secure = is_secure(own)
    if _UNTRUSTED in details:
        return f"the certificate of {address} is not trusted: {CA} names the file of whoever signed it"
    if _OTHER_NAME in details:
        return f"the certificate of {address} is for another name: {SERVER_NAME} says for which"
    if _NO_TLS in details:
        return f"{address} does not speak TLS: {CA} is for servers that do"
    if _CLOSED in details and not secure:
        return f"{address} hangs up: where it speaks TLS, {CA} says whom to trust"
    if _CLOSED in details and not os.environ.get(CLIENT_CERT):
        return f"{address} hangs up: where it asks for a certificate, {CLIENT_CERT} and {CLIENT_KEY} name yours"
    if _CLOSED in details:
        return f"{address} hangs up: is {CLIENT_CERT} signed by one of its LATCHGATE_TLS_CLIENT_CA?"
    return ""


def unanswered(address: str, error: grpc.RpcError, own: CertificateFiles | None = None) -> str:
    """What is wrong with a server that does not even tell its health. own: as for `open_channel`."""
    return tls_advice(address, error.details() or "", own) or f"{address} does not answer: {error.code().name}"


def _own(files: CertificateFiles) -> tuple[bytes | None, str]:
    """The certificate of this machine's own server, and a name that it is for."""
    try:
        certificates = load(files)
    except CertificateProblem as problem:
        fail(str(problem))
    return certificates.chain, certificates.name.replace("*", "any")


def _trusted() -> bytes | None:
    ca = os.environ[CA]
    return None if ca == PUBLIC else _read(CA, ca)


def _client_certificate() -> Sequence[bytes | None]:
    """The client's own key and certificate."""
    cert, key = os.environ.get(CLIENT_CERT), os.environ.get(CLIENT_KEY)
    if cert and key:
        return _read(CLIENT_KEY, key), _read(CLIENT_CERT, cert)
    if cert or key:
        has, has_not = (CLIENT_CERT, CLIENT_KEY) if cert else (CLIENT_KEY, CLIENT_CERT)
        fail(f"{has} is set without {has_not}: a certificate needs both")
    return None, None


def _read(variable: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        fail(f"{variable} {path} cannot be read: {error.strerror}")
