"""The client for asyncio, and the batches in which its calls may travel together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from latchgate.cache import CACHE_SIZE, CacheInfo
from latchgate.client import TIMEOUT, cache_for
from latchgate.connection import TLS, metadata_of, open_aio_channel
from latchgate.errors import CallFailed, call_failed
from latchgate.queries import BATCH_SIZE, answers_from, batches_of, completed, keep_all, request_of, unknown
from latchgate.reaching import explained_aio
from latchgate.results import Query, Question, Verification, verification_from
from latchgate.retries import Retries
from latchgate.v1 import verify_service_pb2_grpc
from latchgate.watch import AsyncWatching


class AsyncClient:
    """Asks VerifyService. Belongs to one event loop; close it, or use it in an `async with`.

    address: `HOST:PORT` or `unix:PATH`. key: the caller's own key string, where the server asks for one; always with a
    cache. cache: repeat decisions without asking, for as long as the server says that nothing has changed. cache_size:
    how many. coalesce: let calls that are made in the same turn of the event loop travel together. timeout: seconds for
    each call, its retries included. tls: None: plaintext.
    """

    def __init__(
        self,
        address: str,
        *,
        key: str | None = None,
        cache: bool = False,
        cache_size: int = CACHE_SIZE,
        coalesce: bool = False,
        timeout: float = TIMEOUT,
        tls: TLS | None = None,
    ) -> None:
        self._address = address
        self._tls = tls
        self._channel = open_aio_channel(address, tls)
        self._stub: Any = verify_service_pb2_grpc.VerifyServiceStub(self._channel)
        self._metadata = metadata_of(key)
        self._timeout = timeout
        self._retries = Retries()
        self._cache = cache_for(key, cache_size) if cache else None
        self._watching = AsyncWatching(self._cache, self._stub, self._metadata) if self._cache else None
        self._company = _Company(self._ask_many) if coalesce else None

    def __repr__(self) -> str:
        return f"AsyncClient({self._address!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection. Calls under way fail. With a cache: report what it was used for, for up to a second."""
        if self._watching is not None:
            await self._watching.close()
        await self._channel.close()

    def cache_info(self) -> CacheInfo:
        """How the cache does."""
        return CacheInfo() if self._cache is None else self._cache.info()

    async def verify(self, key: str, **question: Unpack[Question]) -> Verification:
        """Whether the key may do this, now.

        key: the key string as it was presented. question: the other fields of Query. A denial is an answer, no error.
        Raises CallFailed: nobody could tell, so treat it as a no.
        """
        if self._cache is not None and (known := self._cache.look_up(key, **question)) is not None:
            return known
        return await self._ask(Query(key=key, **question))

    async def verify_query(self, query: Query) -> Verification:
        """The same for a Query."""
        if self._cache is not None and (known := self._cache.find(query)) is not None:
            return known
        return await self._ask(query)

    async def verify_many(self, queries: Iterable[Query]) -> list[Verification | CallFailed]:
        """An answer for each query, in their order; one that is malformed or cannot be decided fails alone.

        Travels in batches of up to 1,000. Raises CallFailed where a whole batch fails.
        """
        if self._cache is None:
            return await self._ask_many(queries)
        asked = list(queries)
        known = [self._cache.find(query) for query in asked]
        return completed(known, await self._ask_many(unknown(asked, known)))

    async def _ask(self, query: Query) -> Verification:
        if self._company is not None:
            answer = await self._company.ask(query)
            if isinstance(answer, CallFailed):
                raise answer
            return answer
        life = self._begin()
        verification = verification_from(await self._call(self._stub.Verify, query.to_message(), query.cost))
        if self._cache is not None:
            self._cache.keep(life, query, verification)
        return verification

    async def _ask_many(self, queries: Iterable[Query]) -> list[Verification | CallFailed]:
        answers: list[Verification | CallFailed] = []
        for batch in batches_of(queries, BATCH_SIZE):
            life = self._begin()
            told = answers_from(await self._call(self._stub.BatchVerify, *request_of(batch)))
            if self._cache is not None:
                keep_all(self._cache, life, batch, told)
            answers += told
        return answers

    def _begin(self) -> int:
        """To be asked before a call whose answer may be kept."""
        if self._cache is None or self._watching is None:
            return 0
        self._watching.ensure()
        return self._cache.begin()

    async def _call(self, method: Any, request: Any, cost: int) -> Any:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        attempt = 0
        while True:
            attempt += 1
            try:
                # Where there is no connection yet, or none any more, a call waits for one: it cannot have been charged.
                remaining = deadline - loop.time()
                response = await method(request, timeout=remaining, metadata=self._metadata, wait_for_ready=True)
            except grpc.aio.AioRpcError as error:
                failed = call_failed(error)
            else:
                self._retries.note_success()
                return response
            pause = self._retries.pause(failed, attempt, cost)
            if pause is None or loop.time() + pause >= deadline:
                raise await explained_aio(failed, self._channel, self._address, self._tls) from None
            await asyncio.sleep(pause)


class _Company:
    """Calls that travel together: those of one turn of the event loop. None waits for another that has not come yet."""

    def __init__(self, ask_many: Callable[[Iterable[Query]], Awaitable[list[Verification | CallFailed]]]) -> None:
        self._ask_many = ask_many
        self._waiting: list[tuple[Query, asyncio.Future[Verification | CallFailed]]] = []
        self._travelling: set[asyncio.Task[None]] = set()

    async def ask(self, query: Query) -> Verification | CallFailed:
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._leave)
        answer: asyncio.Future[Verification | CallFailed] = loop.create_future()
        self._waiting.append((query, answer))
        return await answer

    def _leave(self) -> None:
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), BATCH_SIZE):
            task = asyncio.get_running_loop().create_task(self._travel(waiting[start : start + BATCH_SIZE]))
            self._travelling.add(task)
            task.add_done_callback(self._travelling.discard)

    async def _travel(self, party: list[tuple[Query, asyncio.Future[Verification | CallFailed]]]) -> None:
        try:
            answers = await self._ask_many([query for query, _ in party])
        except CallFailed as error:
            answers = [error] * len(party)
        except BaseException:
            for _, answer in party:
                answer.cancel()
            raise
        for (_, answer), told in zip(party, answers, strict=True):
            if not answer.done():
                answer.set_result(told)
