"""Whether a process makes traces, by OpenTelemetry's own variables."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from importlib.util import find_spec

import structlog

from latchgate_server import log_events, tracing

CLOSE_SECONDS = 2.0
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

_log = structlog.get_logger()


def are_wanted(environment: Mapping[str, str]) -> bool:
    """Whether the environment names a collector, and does not switch traces off."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return False
    return any(environment.get(name) for name in _ENDPOINTS)


def start(stack: AsyncExitStack, instance_id: str) -> None:
    """Make traces where they are wanted, until `stack` ends; before servers are built.

    What is missing for it is logged, and no reason not to serve. instance_id: of this process.
    """
    if not are_wanted(os.environ):
        return
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.exporter.otlp.proto.http") is None:
        _log.warning(log_events.TRACES_UNAVAILABLE, error="they need: pip install 'latchgate-server[otel]'")
        return
    from latchgate_server.otel import NotUnderstood, OpenTelemetry  # noqa: PLC0415 - an optional extra

    try:
        spans = OpenTelemetry(instance_id)
    except (NotUnderstood, ValueError) as error:
        _log.warning(log_events.TRACES_UNAVAILABLE, error=str(error))
        return
    tracing.use(spans)
    stack.push_async_callback(_stop, spans.close)
    _log.info(log_events.TRACES_STARTED)


async def _stop(close: Callable[[float], Awaitable[bool]]) -> None:
    tracing.use(None)
    if not await close(CLOSE_SECONDS):
        _log.warning(log_events.TRACES_LOST)
