"""How a client reaches a server: the address, TLS, and who calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

_OPTIONS: Sequence[tuple[str, Any]] = (
    # A connection that died without a word is noticed within half a minute, and calls go over another.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # Other pings than those for keepalive hold these back, and would be waited for a minute.
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Credentials do not go through whatever proxy an environment variable names.
    ("grpc.enable_http_proxy", 0),
    # Who may be asked for decisions is trusted with memory too: a batch or a page of large claims is more than 4 MiB.
    ("grpc.max_receive_message_length", -1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    """How to speak TLS. Each is a file in PEM form.

    ca: who may have signed the server's certificate; None: the public authorities that gRPC comes with. cert, key: the
    client's own, for a server that asks for one. server_name: a name that the server's certificate is for, where it is
    reached by another one.
    """

    ca: Path | str | None = None
    cert: Path | str | None = None
    key: Path | str | None = field(default=None, repr=False)
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """For a channel. Raises OSError where a file cannot be read."""
        return grpc.ssl_channel_credentials(_read(self.ca), _read(self.key), _read(self.cert))

    def options(self) -> Sequence[tuple[str, Any]]:
        """For a channel."""
        if self.server_name is None:
            return _OPTIONS
        return (*_OPTIONS, ("grpc.ssl_target_name_override", self.server_name))


def _read(path: Path | str | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()


def _plain_options(address: str) -> Sequence[tuple[str, Any]]:
    """Of several addresses, the first is the host that calls are made to: all of them together are no valid one."""
    scheme, _, addresses = address.partition(":")
    if scheme not in {"ipv4", "ipv6"}:
        return _OPTIONS
    return (*_OPTIONS, ("grpc.default_authority", addresses.partition(",")[0]))


def open_channel(address: str, tls: TLS | None) -> grpc.Channel:
    """A channel for calls that block. address: `HOST:PORT`, `unix:PATH`, or `ipv4:` or `ipv6:` and several."""
    if tls is None:
        return grpc.insecure_channel(address, options=_plain_options(address))
    return grpc.secure_channel(address, tls.credentials(), options=tls.options())


def open_aio_channel(address: str, tls: TLS | None) -> grpc.aio.Channel:
    """The same for asyncio."""
    if tls is None:
        return grpc.aio.insecure_channel(address, options=_plain_options(address))
    return grpc.aio.secure_channel(address, tls.credentials(), options=tls.options())


def metadata_of(key: str | None) -> tuple[tuple[str, str], ...]:
    """What tells the server who calls. key: the caller's own key string. Raises ValueError, which does not show it."""
    if not key:
        return ()
    if not _is_plain(key) or " " in key:
        raise ValueError("key: one line of printable ASCII without spaces is expected")
    return (("authorization", f"Bearer {key}"),)


def owner_metadata(owner: str) -> tuple[tuple[str, str], ...]:
    """What narrows an administrator to the keys of an owner. Raises ValueError for what metadata cannot carry.

    Nobody at all is refused as well: a portal that does not know whom it acts for must not act for everybody.
    """
    if not _is_plain(owner) or owner.strip() != owner or not owner:
        raise ValueError("on_behalf_of: an owner of printable ASCII, without spaces around it, is expected")
    return (("x-latchgate-on-behalf-of", owner),)


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()
