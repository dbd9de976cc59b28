"""A server that fails on cue, as no real one does; everything between it and the client is gRPC's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc

VERIFY_SERVICE = "latchgate.v1.VerifyService"
ADMIN_SERVICE = "latchgate.v1.AdminService"


@contextmanager
def acting(service: str, handlers: Mapping[str, Any]) -> Iterator[str]:
    """A server of one service, by its address. handlers: by the name of their RPC."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_registered_method_handlers(service, dict(handlers))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()
