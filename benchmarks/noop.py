"""The floor: a server of the transport's own whose Verify reads the request and answers bytes that it was told.

A process of its own: `python -m benchmarks.noop native BYTES` prints its address and serves until it is terminated.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from types import TracebackType
from typing import Any

import grpc
import pygrpc_native.aio

from latchgate.v1 import verify_service_pb2
from latchgate_server.transport.server import VERIFY_SERVICE, Transport, new_event_loop


async def _serve(transport: Transport, size: int) -> None:
    server: Any = pygrpc_native.aio.server() if transport is Transport.NATIVE else grpc.aio.server()
    response = bytes(size)

    async def answer(_request: verify_service_pb2.VerifyRequest, _context: object) -> bytes:
        return response

    handler: Any = grpc.unary_unary_rpc_method_handler(
        answer, request_deserializer=verify_service_pb2.VerifyRequest.FromString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(VERIFY_SERVICE, {"Verify": handler}),))
    server.add_registered_method_handlers(VERIFY_SERVICE, {"Verify": handler})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)  # noqa: T201 - whoever started it reads it
    await server.wait_for_termination()


class NoopProcess:
    """The floor as a process. Use as a context, which ends it."""

    def __init__(self, transport: str, size: int) -> None:
        """size: of each answer, in bytes."""
        self._arguments = [transport, str(size)]
        self.address = ""

    def __enter__(self) -> NoopProcess:
        command = [sys.executable, "-m", "benchmarks.noop", *self._arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.communicate(timeout=20)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("transport", type=Transport)
    parser.add_argument("size", type=int)
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=lambda: new_event_loop(given.transport)) as runner:
        runner.run(_serve(given.transport, given.size))
