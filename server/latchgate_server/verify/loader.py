"""Reads records from the database into the cache, many callers to one query.

A caller's key is read by a query that is sent after the call, never by one already under way. So what a caller gets was
true at a moment after its call began, whatever else happens meanwhile, and it may decide on it with no lease at all.
Callers that come while a query is under way share the next one, since a query for a few keys costs little more than one
for a single key; where it takes long, another goes beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from latchgate_server import observability, tracing
from latchgate_server.core.errors import CannotDecide, Overloaded
from latchgate_server.core.ports import Reader
from latchgate_server.spans import SpanName
from latchgate_server.verify.cache import Entry, RecordCache
from latchgate_server.verify.waiting import fail

BATCH = 1_000  # of one BatchVerify all misses fit
QUERIES_AT_ONCE = 2
SECOND_QUERY_SECONDS = 0.01
"""How long who comes while one query is under way waits for its end before there is a second one."""

WAITING_KEYS = 20_000
FORMS_AT_ONCE = 1_000  # a few milliseconds' worth
ANSWERED_AT_ONCE = 4
"""How many keys are answered in one go. Their calls go on at once, for a fraction of a millisecond in all, and others
get their turn before the next are answered."""


@dataclass(frozen=True, slots=True)
class LoadedEntry:
    """What a load found. revision: that of its snapshot."""

    entry: Entry
    revision: int


class RecordLoader:
    """Single-flight, batched loads of records."""

    def __init__(self, read: Reader, cache: RecordCache) -> None:
        self._read = read
        self._cache = cache
        self._waiting: dict[str, list[asyncio.Future[LoadedEntry]]] = {}
        self._queries: set[asyncio.Task[None]] = set()
        self._running = 0
        self._second: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def load(self, key_id: str) -> LoadedEntry:
        """What the database holds for the key id, read after this call began.

        Raises StoreUnavailable, Overloaded where too many keys wait already, or CannotDecide once it is closed.
        """
        if self._is_closed:
            raise _closed()
        observability.CACHE_MISSES.inc()
        # Each caller has a future of their own: whoever gives up must not take the others' answer away.
        future: asyncio.Future[LoadedEntry] = asyncio.get_running_loop().create_future()
        callers = self._waiting.get(key_id)
        if callers is not None:
            callers.append(future)
        elif len(self._waiting) >= WAITING_KEYS:
            raise Overloaded("too many keys are being loaded at once")
        else:
            self._waiting[key_id] = [future]
            self._start_query()
        with tracing.span(SpanName.READ_RECORD):
            return await future

    async def read_forms(self, digest: Callable[[str], bytes]) -> None:
        """Read into the cache's filter what forms of imported keys it lacks.

        digest: of a form, under a key of this process. It may not be all: what changes meanwhile is for the next call.
        Raises StoreUnavailable, Overloaded.
        """
        life, is_last, is_same = self._cache.begin_load(), False, True
        while is_same and not is_last:
            observability.RECORD_READS.inc()
            read = await self._read.read_forms(self._cache.imports.place, FORMS_AT_ONCE)
            is_last = len(read.forms) < FORMS_AT_ONCE
            forms = [(place, digest(place[1])) for place in read.forms]
            is_same = self._cache.finish_forms(life, read.revision, forms, is_last)

    def _start_query(self) -> None:
        """See that somebody sends a query for those who wait: at once, or soon."""
        if self._running == 0:
            self._begin_queries()
        elif self._running < QUERIES_AT_ONCE and self._second is None:
            self._second = asyncio.get_running_loop().call_later(SECOND_QUERY_SECONDS, self._begin_second)

    def _begin_second(self) -> None:
        self._second = None
        if self._waiting:
            self._begin_queries()

    def _begin_queries(self) -> None:
        self._running += 1
        task = asyncio.get_running_loop().create_task(self._run_queries())
        self._queries.add(task)
        task.add_done_callback(self._queries.discard)

    async def _run_queries(self) -> None:
        try:
            while self._waiting:
                await self._run_batch()
        finally:
            # In the same step in which nobody was found waiting: whoever comes next starts a query of their own.
            self._running -= 1

    async def _run_batch(self) -> None:
        batch = {key_id: self._waiting.pop(key_id) for key_id in list(self._waiting)[:BATCH]}
        try:
            await self._run_query(batch)
        except BaseException as error:
            for callers in batch.values():
                # Only `close` ends a query; whoever waits for it was not cancelled themselves.
                _fail(callers, error if isinstance(error, Exception) else _closed())
            if not isinstance(error, Exception):
                raise

    async def _run_query(self, batch: Mapping[str, Sequence[asyncio.Future[LoadedEntry]]]) -> None:
        life = self._cache.begin_load()
        observability.RECORD_READS.inc()
        with observability.RECORD_LOAD_SECONDS.time():
            found = await self._read.load_records(list(batch))
        for place, (key_id, callers) in enumerate(batch.items(), 1):
            loaded = found[key_id]
            try:
                entry = self._cache.finish_load(life, key_id, loaded)
            except CannotDecide as error:
                _fail(callers, error)
            else:
                _answer(callers, LoadedEntry(entry, loaded.revision))
            if place % ANSWERED_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def close(self) -> None:
        """End the queries under way, and answer whoever still waits."""
        self._is_closed = True
        if self._second is not None:
            self._second.cancel()
        queries = list(self._queries)
        for task in queries:
            task.cancel()
        await asyncio.gather(*queries, return_exceptions=True)
        waiting, self._waiting = self._waiting, {}
        for callers in waiting.values():
            _fail(callers, _closed())


def _answer(callers: Sequence[asyncio.Future[LoadedEntry]], loaded: LoadedEntry) -> None:
    for future in callers:
        if not future.done():
            future.set_result(loaded)


def _fail(callers: Sequence[asyncio.Future[LoadedEntry]], error: Exception) -> None:
    for future in callers:
        fail(future, error)


def _closed() -> CannotDecide:
    return CannotDecide("this server is shutting down; ask another one, or this one when it is back")
