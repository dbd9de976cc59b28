"""Calls of an AsyncClient that travel together, so that client and server do for many what they would do for each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Unpack

from latchgate.errors import CallFailed
from latchgate.queries import BATCH_SIZE, Answer, Batch
from latchgate.results import Question, Verification, message_of
from latchgate.v1 import verify_service_pb2

_FEW = 8
"""So many calls are not worth two batches."""

_BYTES = 1 << 20
"""The most that a batch holds, well below what the server takes: one monstrous call must not be the others' as well."""

_Future = asyncio.Future[Verification]


class _Party:
    """Calls that leave together: what each asks, and where its answer is waited for."""

    __slots__ = ("answers", "cost", "request")

    def __init__(self, cost: int = 0) -> None:
        self.request = verify_service_pb2.BatchVerifyRequest()
        self.answers: list[_Future] = []
        self.cost = cost

    def halves(self) -> Iterable[_Party]:
        """The same calls, in two parties."""
        middle = len(self.answers) // 2
        return self._part(slice(middle)), self._part(slice(middle, None))

    def _part(self, places: slice) -> _Party:
        part = _Party(self.cost)
        part.request.requests.extend(self.request.requests[places])
        part.answers = self.answers[places]
        return part


class Company:
    """Brings calls together. None waits for another that has not come yet.

    Those that come in one turn of the event loop travel together: in one batch where another one is under way, else
    in two, so that the server decides one while the client reads the answers of the other.
    """

    def __init__(self, ask: Callable[[Batch], Awaitable[None]]) -> None:
        """ask: sees to it that a batch is told. Raises CallFailed where it fails as a whole."""
        self._ask = ask
        self._waiting = _Party()
        self._travelling: set[asyncio.Task[None]] = set()

    def join(self, key: str, **question: Unpack[Question]) -> _Future:
        """The answer to come. Raises what `message_of` raises, at once and for this call alone."""
        party = self._waiting
        message_of(party.request.requests.add, key, **question)
        cost = question.get("cost", 1)
        party.cost = max(party.cost, cost)
        loop = asyncio.get_running_loop()
        if not party.answers:
            loop.call_soon(self._leave)
        answer: _Future = loop.create_future()
        party.answers.append(answer)
        if len(party.answers) == BATCH_SIZE:
            self._leave()
        return answer

    def _leave(self) -> None:
        party, self._waiting = self._waiting, _Party()
        if self._travelling or len(party.answers) <= _FEW:
            self._send(party)
        else:
            for half in party.halves():
                self._send(half)

    def _send(self, party: _Party) -> None:
        if not party.answers:
            return
        if len(party.answers) > 1 and party.request.ByteSize() > _BYTES:
            for half in party.halves():
                self._send(half)
            return
        task = asyncio.get_running_loop().create_task(self._travel(party))
        self._travelling.add(task)
        task.add_done_callback(self._travelling.discard)

    async def _travel(self, party: _Party) -> None:
        answers = party.answers

        def tell(place: int, told: Answer) -> None:
            answer = answers[place]
            if answer.done():  # whoever asked has given up
                return
            if isinstance(told, Verification):
                answer.set_result(told)
            else:
                answer.set_exception(told)

        try:
            await self._ask(Batch(party.request, party.cost, tell))
        except CallFailed as failed:
            for place in range(len(answers)):
                tell(place, failed)
        except BaseException:
            for answer in answers:
                answer.cancel()
            raise
