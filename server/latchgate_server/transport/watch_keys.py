"""WatchKeys: streams of clients that have a cache of their own. What they are told is decided in verify/watchers.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, NoReturn

from latchgate.v1 import verify_service_pb2
from latchgate_server.core import bounds
from latchgate_server.core.errors import CannotDecide, LatchgateError
from latchgate_server.core.model import ROOT_TENANT
from latchgate_server.core.ports import Clock
from latchgate_server.core.record import Record
from latchgate_server.transport.callers import Callers
from latchgate_server.transport.convert_watch import news_to, uses_from
from latchgate_server.transport.errors import Context, abort
from latchgate_server.transport.request_ids import RequestIds
from latchgate_server.transport.rpc import report
from latchgate_server.verify.cached_uses import CachedUses
from latchgate_server.verify.feed import Feed
from latchgate_server.verify.watchers import Watcher, Watchers

WATCH = "latchgate.watch"
"""What a caller needs, whatever else is asked of callers."""

_Requests = AsyncIterator[verify_service_pb2.WatchKeysRequest]


class KeyWatching:
    """Serves the streams of one process."""

    def __init__(  # noqa: PLR0917 - one of each, and nothing else calls it
        self,
        watchers: Watchers,
        feed: Feed,
        uses: CachedUses,
        callers: Callers,
        clock: Clock,
        request_ids: RequestIds,
    ) -> None:
        self._watchers = watchers
        self._feed = feed
        self._uses = uses
        self._callers = callers
        self._clock = clock
        self._request_ids = request_ids

    async def serve(self, requests: _Requests, context: Context) -> None:
        """One stream, from its beginning to its end."""
        try:
            caller = await self._callers.admit(context, WATCH)
            watcher = self._watchers.open(sees_all=_sees_all(caller))
        except Exception as error:  # noqa: BLE001 - whatever it is, no client sees a stack trace
            await self._fail(context, error)
        try:
            # By itself. Where the end comes while the first message is on its way, grpcio does not know yet that these
            # went along with it, has them sent again with the error, and then sends nothing at all.
            await context.send_initial_metadata(())
            await _first_of(self._read(watcher, requests, caller), self._write(watcher, context), watcher.ended())
        except Exception as error:  # noqa: BLE001 - as above
            await self._fail(context, error)
        finally:
            self._watchers.leave(watcher)

    async def _fail(self, context: Context, error: Exception) -> NoReturn:
        with self._request_ids.noted(context) as request_id:
            if not isinstance(error, LatchgateError):  # every other end of a stream is nothing out of the way
                report("WatchKeys", error)
            await abort(context, error, request_id)

    async def _read(self, watcher: Watcher, requests: _Requests, caller: Record) -> None:
        """Take what the client says, at the pace that it is read at, until it says no more."""
        only_tenant = None if _sees_all(caller) else caller.identity.tenant_id
        while True:
            if delay := watcher.pace.delay(self._clock.monotonic()):
                await self._clock.sleep(delay)
            try:
                async with asyncio.timeout(bounds.WATCHER_SILENCE_SECONDS):
                    request = await anext(requests, None)
            except TimeoutError:
                raise CannotDecide(f"nothing was heard for {bounds.WATCHER_SILENCE_SECONDS} s") from None
            if request is None:
                return
            acknowledged = min(request.applied_revision, watcher.told)
            watcher.pace.note_message(self._clock.monotonic(), acknowledged, len(request.uses))
            self._watchers.hear(watcher, request.sequence, request.applied_revision, self._feed.lease_left())
            self._uses.report(uses_from(request), only_tenant)

    async def _write(self, watcher: Watcher, context: Context) -> None:
        """Tell the client what there is to tell, for as long as its own key lets it watch."""
        while True:
            news = await watcher.news()
            # Before each message: what a revoked caller's last message asked for must not be told any more.
            await self._callers.admit(context, WATCH)
            await context.write(news_to(news, self._clock.now()))


def _sees_all(caller: Record) -> bool:
    """Whether every tenant's keys are this caller's business."""
    return caller.identity.tenant_id == ROOT_TENANT


async def _first_of(*works: Coroutine[Any, Any, None]) -> None:
    """Run works side by side until one of them ends, and end the others. Raises what that one raises."""
    tasks = [asyncio.get_running_loop().create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
