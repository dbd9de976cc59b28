"""Who may ask: TLS of both ports, and callers that have to say who they are."""

from __future__ import annotations

from latchgate_server.config import Settings, SettingsProblem
from latchgate_server.transport.certificates import CertificateFiles, CertificateProblem
from latchgate_server.transport.server import Listener, Transport
from latchgate_server.transport.tls import Tls, check


def certificate_files(settings: Settings) -> CertificateFiles | None:
    """Where the certificates are; None without TLS."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return CertificateFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)


def check_certificates(settings: Settings) -> None:
    """Try the certificates out, before anything else is started. Raises SettingsProblem."""
    files = certificate_files(settings)
    if files is None:
        return
    try:
        check(files)
    except CertificateProblem as problem:
        raise SettingsProblem(str(problem)) from None


async def open_tls(settings: Settings) -> Tls | None:
    """The certificates, for both ports; None without TLS. Raises SettingsProblem."""
    files = certificate_files(settings)
    if files is None:
        return None
    try:
        return await Tls.open(files)
    except CertificateProblem as problem:
        raise SettingsProblem(str(problem)) from None


def listeners(settings: Settings, transport: Transport, tls: Tls | None, *, reuse_port: bool) -> list[Listener]:
    """Where and how to listen: for the verify port, and for the admin port."""
    return [
        Listener(
            address,
            transport,
            reuse_port,
            tls.credentials(require_client_certificate=asks_for_certificate) if tls else None,
            settings.tls_connection_age if tls else 0.0,
        )
        for address, asks_for_certificate in (
            (settings.verify_listen, settings.verify_auth == "mtls"),
            (settings.admin_listen, settings.admin_client_cert == "require"),
        )
    ]
