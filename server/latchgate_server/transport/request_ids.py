"""The id by which an operator finds in the log what became of a call: the caller's own, or one that is made here.

It goes back as trailing metadata `x-request-id`, of each call of AdminService and of calls of the data plane that fail.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
import structlog

from latchgate_server import tracing
from latchgate_server.core.ports import Entropy
from latchgate_server.spans import TraceAttribute

_Context = grpc.aio.ServicerContext[Any, Any]

REQUEST_ID = "x-request-id"
_WELL_FORMED = re.compile(r"[0-9A-Za-z][0-9A-Za-z._:/+=@-]{0,127}")
# No id in use has as many letters and digits in a row; every secret of ours has more.
_LIKE_A_SECRET = re.compile(r"[0-9A-Za-z]{43}")
_BYTES = 16


class RequestIds:
    """Takes what callers send if it is fit for a log, and makes up the rest."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy

    def of(self, context: _Context) -> str:
        """The id of a call."""
        sent = [str(value) for key, value in context.invocation_metadata() or () if key == REQUEST_ID]
        return self.from_sent(sent)

    def from_sent(self, sent: Sequence[str]) -> str:
        """The one id that was sent, where it is well-formed and cannot hold a secret of ours; else a new one."""
        if len(sent) == 1 and _WELL_FORMED.fullmatch(sent[0]) and not _LIKE_A_SECRET.search(sent[0]):
            return sent[0]
        return self._entropy.bytes(_BYTES).hex()

    @contextmanager
    def noted(self, context: _Context) -> Iterator[str]:
        """Put the id of a call, and of its trace, on every line that is logged for it. Gives the id."""
        request_id = self.of(context)
        tracing.note({TraceAttribute.REQUEST_ID: request_id})
        if trace_id := tracing.trace_id():
            with structlog.contextvars.bound_contextvars(request_id=request_id, trace_id=trace_id):
                yield request_id
        else:
            with structlog.contextvars.bound_contextvars(request_id=request_id):
                yield request_id
