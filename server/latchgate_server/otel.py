"""Traces for OpenTelemetry (extra `otel`): the only file that imports it, and imported where they are wanted alone.

A thread of the SDK's sends spans over OTLP/HTTP, from a queue of bounded length that drops what a collector does not
take. OpenTelemetry's own variables say where to, and how many (docs/reference/traces.md).
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping
from contextvars import Token
from importlib.metadata import version
from types import TracebackType

from opentelemetry.context import Context, attach, detach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Span,
    SpanKind,
    StatusCode,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from latchgate_server.spans import SpanName, TraceAttribute
from latchgate_server.tracing import Metadata, Value

_PROTOCOL = "http/protobuf"
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_CONTEXT_NAMES = frozenset({"traceparent", "tracestate"})


class NotUnderstood(Exception):
    """What OpenTelemetry's variables ask for is not to be had; the message says what."""


class OpenTelemetry:
    """Implements tracing.MakesSpans."""

    def __init__(self, instance_id: str) -> None:
        """instance_id: of this process. Raises NotUnderstood."""
        protocol = next((os.environ[name] for name in _PROTOCOLS if os.environ.get(name)), _PROTOCOL)
        if protocol != _PROTOCOL:
            raise NotUnderstood(f"spans are sent as {_PROTOCOL} alone, not as {protocol}")
        own_version = version("latchgate-server")
        resource = Resource.create({"service.version": own_version, "service.instance.id": instance_id})
        if str(resource.attributes["service.name"]).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": "latchgate"}))
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._exporter = OTLPSpanExporter()
        self._processor = BatchSpanProcessor(self._exporter)
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("latchgate", own_version)
        self._propagator = TraceContextTextMapPropagator()

    async def close(self, seconds: float) -> bool:
        """Send what waits, for up to that long. Returns whether that came to its end."""
        ended, loop = asyncio.Event(), asyncio.get_running_loop()

        def shut_down() -> None:
            self._processor.shutdown()  # type: ignore[no-untyped-call]  # it has no annotations
            loop.call_soon_threadsafe(ended.set)

        # A thread that nobody waits for when the process ends.
        threading.Thread(target=shut_down, name="last-spans", daemon=True).start()
        try:
            async with asyncio.timeout(seconds):
                await ended.wait()
        except TimeoutError:
            return False
        return True

    def server_span(self, service: str, method: str, metadata: Metadata) -> _Current:
        """See tracing.MakesSpans."""
        carrier = {name: str(value) for name, value in metadata if name in _CONTEXT_NAMES}
        attributes = {
            TraceAttribute.RPC_SYSTEM.value: "grpc",
            TraceAttribute.RPC_SERVICE.value: service,
            TraceAttribute.RPC_METHOD.value: method,
        }
        # Nothing of a context that this process may have: a call belongs to its caller.
        parent = self._propagator.extract(carrier, Context())
        name = f"{service}/{method}"
        span = self._tracer.start_span(name, parent, SpanKind.SERVER, attributes)
        return _Current(span, tells_failures=False)

    def span(self, name: SpanName) -> _Current:
        """See tracing.MakesSpans."""
        span = self._tracer.start_span(name.value) if get_current_span().is_recording() else None
        return _Current(span, tells_failures=True)

    def note(self, attributes: Mapping[TraceAttribute, Value]) -> None:
        """See tracing.MakesSpans."""
        get_current_span().set_attributes({name.value: value for name, value in attributes.items()})

    def note_failure(self, error_type: str) -> None:
        """See tracing.MakesSpans."""
        _mark(get_current_span(), error_type)

    def trace_id(self) -> str:
        """See tracing.MakesSpans."""
        current = get_current_span()
        return format_trace_id(current.get_span_context().trace_id) if current.is_recording() else ""


def _mark(span: Span, error_type: str) -> None:
    span.set_attribute(TraceAttribute.ERROR_TYPE.value, error_type)
    span.set_status(StatusCode.ERROR)


class _Current:
    """Makes a span the one under way, and ends it; None: makes no difference."""

    def __init__(self, span: Span | None, *, tells_failures: bool) -> None:
        """tells_failures: whether an exception marks it; what ends a call is told by its gRPC code."""
        self._span = span
        self._tells_failures = tells_failures
        self._token: Token[Context] | None = None

    def __enter__(self) -> None:
        if self._span is not None:
            self._token = attach(set_span_in_context(self._span))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._span is None:
            return
        if kind is not None and self._tells_failures:
            _mark(self._span, kind.__name__)
        assert self._token is not None
        detach(self._token)
        self._span.end()
