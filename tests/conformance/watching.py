"""A client of WatchKeys that does only what a test tells it to, so that it can be slow, silent or wrong."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import grpc

from latchgate.v1.verify_service_pb2 import CachedUse, WatchKeysRequest, WatchKeysResponse
from latchgate.v1.verify_service_pb2_grpc import VerifyServiceStub

SECONDS = 10.0
"""For what comes at once on a machine that has nothing else to do."""


class Watch:
    """One stream. Use as a context: it is cancelled when that ends."""

    def __init__(self, address: str, key_string: str | None) -> None:
        self._channel = grpc.insecure_channel(address)
        self._sent: queue.SimpleQueue[WatchKeysRequest | None] = queue.SimpleQueue()
        self._received: queue.SimpleQueue[WatchKeysResponse | grpc.RpcError] = queue.SimpleQueue()
        metadata = () if key_string is None else (("authorization", f"Bearer {key_string}"),)
        stub: Any = VerifyServiceStub(self._channel)
        self._call = stub.WatchKeys(iter(self._sent.get, None), metadata=metadata)
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        self.sequence = 0

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self._sent.put(None)
        self._call.cancel()
        self._channel.close()
        self._reading.join(SECONDS)

    def _read(self) -> None:
        try:
            for response in self._call:
                self._received.put(response)
        except grpc.RpcError as error:
            self._received.put(error)

    def say(self, applied_revision: int = 0, uses: Sequence[CachedUse] = ()) -> int:
        """Send a message; returns its sequence."""
        self.sequence += 1
        self._sent.put(WatchKeysRequest(applied_revision=applied_revision, sequence=self.sequence, uses=uses))
        return self.sequence

    def finish(self) -> None:
        """Say that there will be no more messages."""
        self._sent.put(None)

    def heard(self) -> WatchKeysResponse:
        """The next message. Fails where the stream ends instead."""
        response = self._received.get(timeout=SECONDS)
        assert isinstance(response, WatchKeysResponse), response
        return response

    def answer(self, applied_revision: int = 0) -> WatchKeysResponse:
        """Say something and wait for the answer to it."""
        sequence = self.say(applied_revision)
        return next(response for response in self._all() if response.sequence == sequence)

    def told(self) -> WatchKeysResponse:
        """The next message that has something to drop."""
        return next(news for news in self._all() if news.key_ids or news.tenant_ids or news.drop_all)

    def failure(self) -> tuple[grpc.StatusCode, str]:
        """Code and details of what the stream ends with."""
        while True:
            response = self._received.get(timeout=SECONDS)
            if isinstance(response, grpc.RpcError):
                error: Any = response
                return error.code(), error.details()

    def _all(self) -> Iterator[WatchKeysResponse]:
        while True:
            yield self.heard()


class Following:
    """Does what a client does, in a thread while the context lasts: asks for leases, and acknowledges what it is told.

    acknowledges: False: it never does.
    """

    def __init__(self, watch: Watch, *, acknowledges: bool = True) -> None:
        self._watch = watch
        self._acknowledges = acknowledges
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        applied = 0
        while not self._stopping.is_set():
            answer = self._watch.answer(applied)
            if self._acknowledges:
                applied = answer.revision
            self._stopping.wait(0.02)
