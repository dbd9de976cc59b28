"""Where a store of rate limits is, as an operator writes it, and how its servers are spoken to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from valkey.asyncio.cluster import ClusterParser
from valkey.asyncio.connection import Connection, ConnectionPool, SSLConnection, parse_url
from valkey.exceptions import ValkeyError

_ADDRESS = re.compile(r"(?P<scheme>\w+)://(?P<user>.*@)?(?P<hosts>[^/?#@]*)(?P<rest>(?:[/?#].*)?)")
_CONNECTIONS = 32
_EXPECTED = (
    "valkey://USER:PASSWORD@HOST:PORT/0 is expected, or several HOST:PORT of a cluster, separated by commas; "
    "what is special in a password is percent-encoded"
)


class Endpoint(NamedTuple):
    """One server's address. port: 0 where host is the path of a Unix socket."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.port else self.host


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """Where a store is.

    seeds: the servers that were named. More than one are nodes of one cluster. connections: the most to each server.
    options: of every connection, the password among them.
    """

    seeds: tuple[Endpoint, ...]
    connections: int
    options: Mapping[str, Any] = field(repr=False)

    @classmethod
    def parse(cls, address: str) -> StoreAddress:
        """Read an address such as `valkey://:PASSWORD@a:6379,b:6379/0`; `redis` in place of `valkey` is the same.

        Raises ValueError, which quotes nothing of the address.
        """
        matched = _ADDRESS.fullmatch(address)
        if matched is None:
            raise ValueError(_EXPECTED)
        scheme, user, rest = matched["scheme"], matched["user"] or "", matched["rest"]
        hosts = matched["hosts"].split(",")
        try:
            read = [parse_url(f"{scheme}://{user}{host}{rest}") for host in hosts]
        except ValueError:
            raise ValueError(_EXPECTED) from None
        options = dict(read[0])
        if "path" in options:
            seeds = [Endpoint(options["path"], 0)]
        else:
            seeds = [_seed(host, of_host) for host, of_host in zip(hosts, read, strict=True)]
        if len(seeds) > 1 and not all(hosts):
            raise ValueError(_EXPECTED)
        if options.get("connection_class") is SSLConnection:
            options.setdefault("ssl_check_hostname", True)  # else whoever has any certificate is given the password
        connections = options.pop("max_connections", _CONNECTIONS)
        made = cls(tuple(dict.fromkeys(seeds)), connections, options)
        try:
            made.pool(seeds[0], 1.0).make_connection()  # type: ignore[no-untyped-call]  # Valkey's has no types
        except (TypeError, ValueError, ValkeyError):
            raise ValueError("an option after its '?' is not known, or has no such value") from None
        return made

    def pool(self, endpoint: Endpoint, patience: float) -> ConnectionPool:
        """Connections to one server. patience: seconds that opening or closing one may take."""
        options: dict[str, Any] = {"socket_connect_timeout": patience, "parser_class": ClusterParser, **self.options}
        if endpoint.port:
            if options.pop("path", None) is not None:
                options["connection_class"] = Connection
            options |= endpoint._asdict()
        return ConnectionPool(max_connections=self.connections, **options)


def _seed(host: str, options: Mapping[str, Any]) -> Endpoint:
    """host: as it was written, which the reader of URLs must have understood likewise."""
    found = str(options.get("host", "localhost"))
    if host and found.lower() not in host.lower():
        raise ValueError(_EXPECTED)
    return Endpoint(found, options.get("port", 6379))
