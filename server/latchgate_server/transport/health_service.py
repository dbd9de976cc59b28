"""Health: what serves, for those who ask and for those who watch (grpc.health.v1)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from latchgate_server.transport.errors import Context

_Response = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):
    """The status of each service by its full name, `""` for the server as a whole.

    In place of grpcio's own, which never lets go of those who watch: one of them would hold up every drain.
    """

    def __init__(self) -> None:
        self._statuses: dict[str, int] = {}
        self._is_draining = False
        self._has_ended = False
        self._changed = asyncio.Event()

    def set(self, service: str, is_serving: bool) -> None:
        """Turn the status of a service; no more once it drains."""
        if not self._is_draining:
            self._statuses[service] = _Response.SERVING if is_serving else _Response.NOT_SERVING
            self._tell()

    def drain(self) -> None:
        """Turn every status to NOT_SERVING for good.

        Those who watch go on watching: a client whose watch ends begins another one at once.
        """
        self._statuses = dict.fromkeys(self._statuses, _Response.NOT_SERVING)
        self._is_draining = True
        self._tell()

    def end(self) -> None:
        """End the calls of those who watch, once they were told the last status."""
        self._has_ended = True
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> _Response:
        if request.service not in self._statuses:
            await context.abort(grpc.StatusCode.NOT_FOUND, "this server does not offer that service")
        return _Response(status=self._statuses[request.service])

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> AsyncIterator[_Response]:
        told = None
        while True:
            changed, is_last = self._changed, self._has_ended
            status = self._statuses.get(request.service, _Response.SERVICE_UNKNOWN)
            if status != told:
                yield _Response(status=status)
                told = status
            if is_last:
                return
            await changed.wait()
