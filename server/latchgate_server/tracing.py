"""Spans around calls and their parts, where somebody wants traces; else nothing, at next to no cost.

Who makes them is handed in (otel.py). No attribute ever holds a secret, and of an error nothing but its type is told: a
message may quote a request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from latchgate_server.spans import SpanName, TraceAttribute

Value = str | int | bool
Metadata = Iterable[tuple[str, str | bytes]]
"""That of a call: names and values."""

_TRACE_PARENT = "traceparent"
# https://www.w3.org/TR/trace-context/#traceparent-header; the last two digits are flags, the lowest of them "sampled".
# An id of zeros is none; later versions than 00, but for ff, may go on after the flags.
_IDS_AND_FLAGS = r"-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f][13579bdf]"
_SAMPLED = re.compile(rf"00{_IDS_AND_FLAGS}|(?!00|ff)[0-9a-f]{{2}}{_IDS_AND_FLAGS}(-.*)?")
_NOTHING: AbstractContextManager[None] = nullcontext()


class MakesSpans(Protocol):
    """What makes spans and sends them somewhere."""

    def server_span(self, service: str, method: str, metadata: Metadata) -> AbstractContextManager[None]:
        """A span around a call, below its caller's where the metadata names one (W3C Trace Context)."""
        ...

    def span(self, name: SpanName) -> AbstractContextManager[None]:
        """A span around a part of a call for which there is one."""
        ...

    def note(self, attributes: Mapping[TraceAttribute, Value]) -> None:
        """Add attributes to the span that is under way, if any."""
        ...

    def note_failure(self, error_type: str) -> None:
        """Mark the span that is under way, if any, as failed."""
        ...

    def trace_id(self) -> str:
        """The id of the trace that is under way, as 32 hexadecimal digits; empty where none is recorded."""
        ...


class _Tracing:
    spans: MakesSpans | None = None


_tracing = _Tracing()


def use(spans: MakesSpans | None) -> None:
    """Make spans with this from now on; None: make no more. Before servers are built, which ask `is_on` once."""
    _tracing.spans = spans


def is_on() -> bool:
    """Whether spans are made."""
    return _tracing.spans is not None


def is_followed(metadata: Metadata) -> bool:
    """Whether a call belongs to a trace that its caller samples."""
    return any(name == _TRACE_PARENT and _SAMPLED.fullmatch(str(value)) for name, value in metadata)


def server_span(service: str, method: str, metadata: Metadata) -> AbstractContextManager[None]:
    """See MakesSpans."""
    return _NOTHING if _tracing.spans is None else _tracing.spans.server_span(service, method, metadata)


def span(name: SpanName) -> AbstractContextManager[None]:
    """See MakesSpans."""
    return _NOTHING if _tracing.spans is None else _tracing.spans.span(name)


def note(attributes: Mapping[TraceAttribute, Value]) -> None:
    """See MakesSpans. Empty texts are left out."""
    if _tracing.spans is not None:
        _tracing.spans.note({name: value for name, value in attributes.items() if value != ""})


def note_failure(error: BaseException) -> None:
    """See MakesSpans."""
    if _tracing.spans is not None:
        _tracing.spans.note_failure(type(error).__name__)


def trace_id() -> str:
    """See MakesSpans."""
    return "" if _tracing.spans is None else _tracing.spans.trace_id()
