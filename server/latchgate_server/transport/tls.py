"""TLS of both ports: what gRPC is given, and how new files take the place of old ones while it serves.

gRPC asks for the certificate at each handshake, so connections that are open keep theirs, and the next one gets the new
one. What cannot be served with never gets that far: the one before stays.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import grpc
import structlog

from latchgate_server import log_events, observability
from latchgate_server.core.ports import Clock
from latchgate_server.transport.certificates import CertificateFiles, CertificateProblem, Certificates, Stamp, load

LOOK_SECONDS = 1.0
_REHEARSAL_SECONDS = 10.0

_ADVICE = (
    "the certificate before stays in use: correct the files, which are looked at again when they change or on SIGHUP"
)

_log = structlog.get_logger()


class Tls:
    """The certificates in use. Made by `open`."""

    def __init__(self, files: CertificateFiles, stamp: Stamp, current: Certificates) -> None:
        self._files = files
        self._stamp = stamp
        self._current = current
        self._tell()

    @classmethod
    async def open(cls, files: CertificateFiles) -> Tls:
        """Read the files and try them out. Raises CertificateProblem."""
        stamp = files.stamp()
        return cls(files, stamp, await asyncio.to_thread(check, files))

    def credentials(self, *, require_client_certificate: bool) -> grpc.ServerCredentials:
        """For a port. require_client_certificate: let nobody in without one of the client CA's."""
        given = self._current

        def changed() -> grpc.ServerCertificateConfiguration | None:
            """What is new since the last handshake of this port. gRPC calls it in a thread of its own."""
            nonlocal given
            current = self._current
            if current is given:
                return None
            given = current
            return _configuration(current)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(given),
            changed,  # type: ignore[arg-type]  # None is allowed by grpcio's documentation: nothing has changed
            require_client_certificate,
        )

    async def reload(self) -> None:
        """Serve new connections with what is in the files now; with what was there before, where that is no good."""
        self._stamp = self._files.stamp()
        try:
            current = await asyncio.to_thread(check, self._files)
        except CertificateProblem as problem:
            _log.error(
                log_events.CERTIFICATE_REFUSED,
                error=str(problem),
                advice=_ADVICE,
                certificate=str(self._files.cert),
                name=self._current.name,
                expires=self._expires(),
            )
            return
        self._current = current
        self._tell()
        _log.info(
            log_events.CERTIFICATE_LOADED,
            certificate=str(self._files.cert),
            name=current.name,
            expires=self._expires(),
        )

    async def watch(self, clock: Clock) -> None:
        """Reload when files changed, but not while they do: key and certificate are seldom replaced at once."""
        seen = self._stamp
        while True:
            await clock.sleep(LOOK_SECONDS)
            before, seen = seen, self._files.stamp()
            if seen == before != self._stamp:
                await self.reload()

    def _tell(self) -> None:
        observability.CERTIFICATE_EXPIRES.set(self._current.expire_time)

    def _expires(self) -> str:
        return datetime.fromtimestamp(self._current.expire_time, UTC).isoformat()


def check(files: CertificateFiles) -> Certificates:
    """Read the files, and see whether gRPC can serve with them: its TLS knows fewer kinds of keys than Python's.

    Blocks. Raises CertificateProblem.
    """
    certificates = load(files)
    if certificates.name and not _can_serve(certificates):
        raise CertificateProblem(
            f"gRPC cannot serve with LATCHGATE_TLS_CERT {files.cert}: an RSA key, or an EC key on P-256 or P-384, works"
        )
    return certificates


def _can_serve(certificates: Certificates) -> bool:
    """Whether gRPC's client gets an answer from gRPC's server, on a port of this machine's own."""
    credentials = grpc.ssl_server_credentials([(certificates.key, certificates.chain)])
    options = (
        ("grpc.ssl_target_name_override", certificates.name.replace("*", "any")),
        ("grpc.enable_http_proxy", 0),
    )
    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        try:
            trusting = grpc.ssl_channel_credentials(certificates.chain)
            with grpc.secure_channel(f"127.0.0.1:{port}", trusting, options) as channel:
                call: Any = channel.unary_unary("/latchgate/Rehearsal")
                answer = call.future(b"", timeout=_REHEARSAL_SECONDS)
                return answer.code() is grpc.StatusCode.UNIMPLEMENTED
        finally:
            server.stop(None).wait()


def _configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(certificates.key, certificates.chain)], certificates.client_ca)
