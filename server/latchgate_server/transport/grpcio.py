"""The grpcio server, which one request could end: one whose path is no UTF-8.

The library decodes the path of each call of a method that nobody registered, in the loop that takes calls up, and an
error there shuts the server down. So those calls are taken up under the name of a method that is registered and that
nobody serves. `tests/attack/test_http2.py` sends such a path.

It overrides a method that the library keeps to itself; a library that does not call it any more is refused at start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
from grpc._cython import cygrpc
from grpc.aio._server import Server

_UNKNOWN = "/latchgate/unknown"
"""Stands for every method that there is not; to call it by its name comes to the same."""


class UnguardedLibrary(Exception):
    """This version of grpcio does not let itself be guarded; the message says what to do."""


class GrpcioServer(Server):
    """See the top of this file. To be made where the event loop runs that it serves on."""

    def __init__(self, options: Sequence[tuple[str, Any]]) -> None:
        # Not the library's, which makes a core of its own kind; all else that it does is about interceptors.
        self._loop = asyncio.get_running_loop()
        self._server = _GuardedCore(self._loop, None, (), (), tuple(options), None)
        self._server.add_registered_method_handlers({_UNKNOWN: None})

    async def start(self) -> None:
        """Listen, and serve on the running event loop. Raises UnguardedLibrary."""
        await super().start()
        if not self._server.is_guarded:
            await self.stop(0)
            raise UnguardedLibrary(f"grpcio {grpc.__version__} cannot be used here: pip install 'grpcio==1.85.*'")


class _GuardedCore(cygrpc.AioServer):  # type: ignore[misc]  # compiled, without types
    """Its loop asks for the next call of each registered method, and of all others by None."""

    is_guarded = False

    def _make_request_call_future(self, method: bytes | None) -> asyncio.Future[Any]:
        if method == _UNKNOWN.encode():
            return asyncio.get_running_loop().create_task(self._request_call())
        if method is None:
            # What the library decodes is then the path of a registered method, which it does not keep: empty.
            self.is_guarded = True
            method = _UNKNOWN.encode()
        future: asyncio.Future[Any] = super()._make_request_call_future(method)
        return future
