"""The client for programs that block."""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from latchgate.connection import TLS, metadata_of, open_channel
from latchgate.errors import CallFailed, call_failed
from latchgate.queries import BATCH_SIZE, answers_from, batches_of
from latchgate.reaching import explained
from latchgate.results import Query, Question, Verification, verification_from
from latchgate.retries import Retries
from latchgate.v1 import verify_service_pb2_grpc

TIMEOUT = 2.0
"""Seconds for a call, its retries included, unless told otherwise."""


class Client:
    """Asks VerifyService. Safe to share between threads; close it, or use it in a `with`.

    address: `HOST:PORT` or `unix:PATH`. key: the caller's own key string, where the server asks for one.
    timeout: seconds for each call, its retries included. tls: None: plaintext.
    """

    def __init__(
        self, address: str, *, key: str | None = None, timeout: float = TIMEOUT, tls: TLS | None = None
    ) -> None:
        self._address = address
        self._tls = tls
        self._channel = open_channel(address, tls)
        self._stub: Any = verify_service_pb2_grpc.VerifyServiceStub(self._channel)
        self._metadata = metadata_of(key)
        self._timeout = timeout
        self._retries = Retries()

    def __repr__(self) -> str:
        return f"Client({self._address!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def verify(self, key: str, **question: Unpack[Question]) -> Verification:
        """Whether the key may do this, now.

        key: the key string as it was presented. question: the other fields of Query. A denial is an answer, no error.
        Raises CallFailed: nobody could tell, so treat it as a no.
        """
        return self.verify_query(Query(key=key, **question))

    def verify_query(self, query: Query) -> Verification:
        """The same for a Query."""
        response = self._call(self._stub.Verify, query.to_message(), query.cost)
        return verification_from(response)

    def verify_many(self, queries: Iterable[Query]) -> list[Verification | CallFailed]:
        """An answer for each query, in their order; one that is malformed or cannot be decided fails alone.

        Travels in batches of up to 1,000. Raises CallFailed where a whole batch fails.
        """
        answers: list[Verification | CallFailed] = []
        for batch, cost in batches_of(queries, BATCH_SIZE):
            answers += answers_from(self._call(self._stub.BatchVerify, batch, cost))
        return answers

    def _call(self, method: Any, request: Any, cost: int) -> Any:
        deadline = time.monotonic() + self._timeout
        attempt = 0
        while True:
            attempt += 1
            try:
                # Where there is no connection yet, or none any more, a call waits for one: it cannot have been charged.
                remaining = deadline - time.monotonic()
                response = method(request, timeout=remaining, metadata=self._metadata, wait_for_ready=True)
            except grpc.RpcError as error:
                failed = call_failed(error)
            else:
                self._retries.note_success()
                return response
            pause = self._retries.pause(failed, attempt, cost)
            if pause is None or time.monotonic() + pause >= deadline:
                raise explained(failed, self._channel, self._address, self._tls) from None
            time.sleep(pause)
