"""Where Prometheus reads the metrics."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server

_SECONDS = 0.05


@contextmanager
def metrics_server(address: str, registry: CollectorRegistry) -> Iterator[str]:
    """Answer `/metrics` on `HOST:PORT` while the context lasts; gives the address with its actual port.

    Raises OSError where the address cannot be had.
    """
    host, _, port = address.rpartition(":")
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry=registry)
    except OSError as error:
        raise OSError(f"cannot listen on {address} for metrics: {error.strerror}") from error
    try:
        yield f"{host}:{server.server_port}"
    finally:
        _end(server, host.strip("[]"))
        server.server_close()
        thread.join()


def _end(server: WSGIServer, host: str) -> None:
    """End the server at once: it looks whether it is to end when somebody connects, and else twice a second."""
    ending = threading.Thread(target=server.shutdown)
    ending.start()
    while ending.is_alive():
        with suppress(OSError):
            socket.create_connection((host, server.server_port), _SECONDS).close()
        ending.join(_SECONDS)
