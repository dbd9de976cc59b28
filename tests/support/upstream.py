"""A service that is protected: it answers every request with what it was sent, over HTTP/1.1 and as gRPC."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc

ECHO_METHOD = "/test.Echo/Say"


@dataclass(frozen=True)
class Seen:
    """A request as the upstream saw it. headers: by name as sent; of one that is there twice, both."""

    line: str
    headers: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, body: bytes) -> Seen:
        told = json.loads(body)
        headers: dict[str, list[str]] = {}
        for name, value in told["headers"]:
            headers.setdefault(name, []).append(value)
        return cls(told["line"], headers)

    @property
    def identity(self) -> dict[str, str]:
        """What it was told of who calls, by the names without their prefix."""
        found = {}
        for name, values in self.headers.items():
            plain = name.lower().replace("_", "-")
            if plain.startswith("x-latchgate-"):
                assert name == plain, name
                (found[plain.removeprefix("x-latchgate-")],) = values
        return found


class Upstream:
    """HTTP/1.1 at `address`, gRPC at `grpc_address`. Use as a context."""

    def __init__(self) -> None:
        self.address = ""
        self.grpc_address = ""
        self.requests = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="upstream", daemon=True)

    def __enter__(self) -> Upstream:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1_000_000), self._loop
        ).result(10)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._grpc = grpc.server(ThreadPoolExecutor(2), options=[("grpc.max_metadata_size", 100_000)])
        handler: Any = grpc.unary_unary_rpc_method_handler(_echo)
        self._grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Say": handler}),))
        self.grpc_address = f"127.0.0.1:{self._grpc.add_insecure_port('127.0.0.1:0')}"
        self._grpc.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._grpc.stop(0).wait()
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").removesuffix("\r\n\r\n")
                self.requests += 1
                line, *rest = head.split("\r\n")
                headers = [header.split(": ", 1) for header in rest]
                body = json.dumps({"line": line, "headers": headers}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()


def _echo(request: bytes, context: Any) -> bytes:
    headers = [[name, value if isinstance(value, str) else ""] for name, value in context.invocation_metadata()]
    return json.dumps({"line": request.decode(), "headers": headers}).encode()
