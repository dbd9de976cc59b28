"""The store of rate limits that all processes share, and which of its nodes are lost."""

from __future__ import annotations

from typing import Final

import structlog

from latchgate_server import log_events, observability, tracing
from latchgate_server.core.charging import Limits
from latchgate_server.core.errors import CannotDecide, StoreUnavailable
from latchgate_server.core.limit_stores import Charged, RateStore
from latchgate_server.core.ports import Clock
from latchgate_server.spans import SpanName

_RETRY_SECONDS: Final = 1.0

_log = structlog.get_logger()


class SharedRates:
    """The store, asked for what its nodes answer. Each is lost by itself, and keeps up nobody but its own tenants."""

    def __init__(self, store: RateStore, clock: Clock, deny_on_loss: bool) -> None:
        """deny_on_loss: whether nothing is decided without the store; otherwise each process counts its own share."""
        self._store = store
        self._clock = clock
        self._deny_on_loss = deny_on_loss
        # The nodes that failed, and until when each is left alone.
        self._lost: dict[str, float] = {}

    def is_worth_asking(self, limits: Limits) -> bool:
        """Whether to ask the store about rate limits, one or more: not for a moment after their node failed."""
        if not self._lost:
            return True
        until = self._lost.get(self._node_of(limits))
        return until is None or self._clock.monotonic() >= until

    def check_loss(self, limits: Limits) -> None:
        """Raise StoreUnavailable where nothing is to be decided without the store, and it is lost to these limits."""
        if self._deny_on_loss and not self.is_worth_asking(limits):
            raise StoreUnavailable("the store of rate limits cannot be reached")

    async def charge(self, limits: Limits, need: int, take: int) -> Charged | None:
        """What the store says; None where it is lost and each process counts for itself."""
        if self._lost:
            self._leave_to_this_call(self._node_of(limits))
        try:
            with tracing.span(SpanName.ASK_LIMIT_STORE), observability.LIMIT_STORE_SECONDS.time():
                charged = await self._store.charge(limits.rates, need, take)
        except CannotDecide as error:
            self._note_loss(self._node_of(limits), error)
            self.check_loss(limits)
            return None
        if self._lost:
            self._note_answer(self._node_of(limits))
        return charged

    def _node_of(self, limits: Limits) -> str:
        return self._store.node_of(limits.rates[0].tenant_id)

    def _leave_to_this_call(self, node: str) -> None:
        """Let one call at a time find out whether a lost node is back; others do not wait for it."""
        if node in self._lost:
            self._lost[node] = self._clock.monotonic() + _RETRY_SECONDS

    def _note_loss(self, node: str, error: CannotDecide) -> None:
        observability.LIMIT_STORE_LOSSES.inc()
        observability.LIMIT_STORE_UP.set(0)
        if node not in self._lost:
            _log.warning(log_events.LIMIT_STORE_LOST, node=node, error=str(error), denying=self._deny_on_loss)
        self._lost[node] = self._clock.monotonic() + _RETRY_SECONDS

    def _note_answer(self, node: str) -> None:
        """Forget the loss of a node that answers, and of those in whose place others have come."""
        nodes = self._store.nodes()
        found = [lost for lost in self._lost if lost == node or lost not in nodes]
        for lost in found:
            del self._lost[lost]
            _log.info(log_events.LIMIT_STORE_FOUND, node=lost)
        if not self._lost:
            observability.LIMIT_STORE_UP.set(1)
