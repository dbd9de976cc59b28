"""The client for programs that block."""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from latchgate.cache import CACHE_SIZE, CacheInfo, DecisionCache
from latchgate.connection import TLS, metadata_of, open_channel
from latchgate.errors import CallFailed, call_failed
from latchgate.queries import BATCH_SIZE, Answer, Batch, Single, batch_of, batches_of, completed, keep_all, unknown
from latchgate.reaching import explained
from latchgate.results import Query, Question, Verification
from latchgate.retries import Retries
from latchgate.v1 import verify_service_pb2_grpc
from latchgate.watch import Watching

TIMEOUT = 2.0
"""Seconds for a call, its retries included, unless told otherwise."""


def cache_for(key: str | None, size: int) -> DecisionCache:
    """A cache for a client that calls with this key. Raises ValueError without one."""
    if not key:
        raise ValueError("cache=True needs key=…, of a key with the permission latchgate.watch")
    return DecisionCache(size)


class Client:
    """Asks VerifyService. Safe to share between threads; close it, or use it in a `with`.

    address: `HOST:PORT`, `unix:PATH`, or several replicas as `ipv4:HOST:PORT,HOST:PORT`. key: the caller's own key
    string, where the server asks for one; always with a cache. cache: repeat decisions without asking, for as long
    as the server says that nothing has changed. cache_size: how many. timeout: seconds for each call, its retries
    included. tls: None: plaintext.
    """

    def __init__(
        self,
        address: str,
        *,
        key: str | None = None,
        cache: bool = False,
        cache_size: int = CACHE_SIZE,
        timeout: float = TIMEOUT,
        tls: TLS | None = None,
    ) -> None:
        self._address = address
        self._tls = tls
        self._channel = open_channel(address, tls)
        self._stub: Any = verify_service_pb2_grpc.VerifyServiceStub(self._channel)
        self._metadata = metadata_of(key)
        self._timeout = timeout
        self._retries = Retries()
        self._cache = cache_for(key, cache_size) if cache else None
        self._watching = Watching(self._cache, self._stub, self._metadata) if self._cache else None

    def __repr__(self) -> str:
        return f"Client({self._address!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. With a cache: report what it was used for, for up to a second."""
        if self._watching is not None:
            self._watching.close()
        self._channel.close()

    def cache_info(self) -> CacheInfo:
        """How the cache does."""
        return CacheInfo() if self._cache is None else self._cache.info()

    def verify(self, key: str, **question: Unpack[Question]) -> Verification:
        """Whether the key may do this, now.

        key: the key string as it was presented. question: the other fields of Query. A denial is an answer, no error.
        Raises CallFailed: nobody could tell, so treat it as a no.
        """
        if self._cache is not None and (known := self._cache.look_up(key, **question)) is not None:
            return known
        return self._ask(Query(key=key, **question))

    def verify_query(self, query: Query) -> Verification:
        """The same for a Query."""
        if self._cache is not None and (known := self._cache.find(query)) is not None:
            return known
        return self._ask(query)

    def _ask(self, query: Query) -> Verification:
        life = self._begin()
        single = Single(query)
        self._call(self._stub.Verify, single)
        if self._cache is not None:
            self._cache.keep(life, query, single.answer)
        return single.answer

    def _begin(self) -> int:
        """To be asked before a call whose answer may be kept."""
        if self._cache is None or self._watching is None:
            return 0
        self._watching.ensure()
        return self._cache.begin()

    def verify_many(self, queries: Iterable[Query]) -> list[Answer]:
        """An answer for each query, in their order; one that is malformed or cannot be decided fails alone.

        Travels in batches of up to 1,000. Raises CallFailed where a whole batch fails.
        """
        if self._cache is None:
            return self._ask_many(queries)
        asked = list(queries)
        known = [self._cache.find(query) for query in asked]
        return completed(known, self._ask_many(unknown(asked, known)))

    def _ask_many(self, queries: Iterable[Query]) -> list[Answer]:
        answers: list[Answer] = []
        for batch in batches_of(queries, BATCH_SIZE):
            life = self._begin()
            told: dict[int, Answer] = {}
            self._call(self._stub.BatchVerify, batch_of(batch, told.__setitem__))
            some = [told[place] for place in range(len(batch))]
            if self._cache is not None:
                keep_all(self._cache, life, batch, some)
            answers += some
        return answers

    def _call(self, method: Any, asked: Single | Batch) -> None:
        """Ask until everything is answered. Raises CallFailed where it fails as a whole."""
        deadline = time.monotonic() + self._timeout
        attempt = 0
        while True:
            attempt += 1
            failed: CallFailed | None
            try:
                # Where there is no connection yet, or none any more, a call waits for one: it cannot have been charged.
                remaining = deadline - time.monotonic()
                response = method(asked.request, timeout=remaining, metadata=self._metadata, wait_for_ready=True)
            except grpc.RpcError as error:
                failed = call_failed(error)
            else:
                failed = asked.hear(response)
                if failed is None:
                    self._retries.note_success()
                    return
            pause = self._retries.pause(failed, attempt, asked.cost)
            if pause is None or time.monotonic() + pause >= deadline:
                asked.fail(explained(failed, self._channel, self._address, self._tls))
                return
            time.sleep(pause)
