"""The client for asyncio, and the batches in which its calls may travel together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from latchgate.client import TIMEOUT
from latchgate.connection import TLS, metadata_of, open_aio_channel
from latchgate.errors import CallFailed, call_failed
from latchgate.queries import BATCH_SIZE, answers_from, batches_of
from latchgate.reaching import explained_aio
from latchgate.results import Query, Question, Verification, verification_from
from latchgate.retries import Retries
from latchgate.v1 import verify_service_pb2_grpc


class AsyncClient:
    """Asks VerifyService. Belongs to one event loop; close it, or use it in an `async with`.

    address: `HOST:PORT` or `unix:PATH`. key: the caller's own key string, where the server asks for one. coalesce: let
    calls that are made in the same turn of the event loop travel together. timeout: seconds for each call, its retries
    included. tls: None: plaintext.
    """

    def __init__(
        self,
        address: str,
        *,
        key: str | None = None,
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
        self._company = _Company(self) if coalesce else None

    def __repr__(self) -> str:
        return f"AsyncClient({self._address!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection. Calls under way fail."""
        await self._channel.close()

    async def verify(self, key: str, **question: Unpack[Question]) -> Verification:
        """Whether the key may do this, now.

        key: the key string as it was presented. question: the other fields of Query. A denial is an answer, no error.
        Raises CallFailed: nobody could tell, so treat it as a no.
        """
        return await self.verify_query(Query(key=key, **question))

    async def verify_query(self, query: Query) -> Verification:
        """The same for a Query."""
        if self._company is None:
            return verification_from(await self._call(self._stub.Verify, query.to_message(), query.cost))
        answer = await self._company.ask(query)
        if isinstance(answer, CallFailed):
            raise answer
        return answer

    async def verify_many(self, queries: Iterable[Query]) -> list[Verification | CallFailed]:
        """An answer for each query, in their order; one that is malformed or cannot be decided fails alone.

        Travels in batches of up to 1,000. Raises CallFailed where a whole batch fails.
        """
        answers: list[Verification | CallFailed] = []
        for batch, cost in batches_of(queries, BATCH_SIZE):
            answers += answers_from(await self._call(self._stub.BatchVerify, batch, cost))
        return answers

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

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
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
            answers = await self._client.verify_many([query for query, _ in party])
        except CallFailed as error:
            answers = [error] * len(party)
        except BaseException:
            for _, answer in party:
                answer.cancel()
            raise
        for (_, answer), told in zip(party, answers, strict=True):
            if not answer.done():
                answer.set_result(told)
