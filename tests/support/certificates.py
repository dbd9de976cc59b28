"""Certificates for tests: an authority, a server's certificate that it signed, and those of callers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import grpc
import trustme

NAMES = ("latchgate.test", "localhost", "127.0.0.1")


class Authority:
    """A certificate authority, with its files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca = trustme.CA()
        self.file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def issue(self, name: str, *names: str, expires: datetime | None = None) -> Pair:
        """A certificate for these names, in `name`.pem and `name`.key; what was there before is replaced."""
        leaf = self._ca.issue_cert(*(names or NAMES), not_after=expires)
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        chain = b"".join(certificate.bytes() for certificate in leaf.cert_chain_pems)
        for file, content in ((pair.key, leaf.private_key_pem.bytes()), (pair.cert, chain)):
            # A name that changes hands at once, as tools that renew certificates do it.
            partial = file.with_suffix(".partial")
            partial.write_bytes(content)
            partial.replace(file)
        return pair

    def credentials(self, pair: Pair | None = None) -> grpc.ChannelCredentials:
        """For a client that trusts this authority. pair: its own certificate."""
        key, cert = (pair.key.read_bytes(), pair.cert.read_bytes()) if pair else (None, None)
        return grpc.ssl_channel_credentials(self.file.read_bytes(), key, cert)


class Pair:
    """The files of a certificate and of its key."""

    def __init__(self, cert: Path, key: Path) -> None:
        self.cert = cert
        self.key = key

    def settings(self) -> Mapping[str, str]:
        """For a server with this certificate."""
        return {"tls_cert": str(self.cert), "tls_key": str(self.key)}


YESTERDAY = datetime(2020, 1, 1, tzinfo=UTC)
