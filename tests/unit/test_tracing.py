"""When there are traces, which calls they follow, and that without them nothing is done."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack

import pytest

from latchgate_server import tracing
from latchgate_server.bootstrap import traces
from latchgate_server.spans import SpanName, TraceAttribute

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_SERVICE_NAME": "keys"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SDK_DISABLED": "True"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "otlp"}, True),
    ],
)
def test_the_environment_turns_traces_on(environment: Mapping[str, str], wanted: bool) -> None:
    assert traces.are_wanted(environment) is wanted


@pytest.mark.parametrize(
    ("value", "followed"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"00-{TRACE}-{SPAN}-02", False),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", True),
        (f"00-{TRACE}-{SPAN}-01-what-the-future-brings", False),
        (f"ff-{TRACE}-{SPAN}-01", False),
        (f"00-{'0' * 32}-{SPAN}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE.upper()}-{SPAN}-01", False),
        ("", False),
    ],
)
def test_a_call_is_followed_where_its_caller_samples(value: str, followed: bool) -> None:
    assert tracing.is_followed((("user-agent", "x"), ("traceparent", value))) is followed


def test_without_traces_nothing_is_made() -> None:
    assert not tracing.is_on()
    assert tracing.span(SpanName.CHANGE) is tracing.span(SpanName.HASH_SECRET) is tracing.server_span("s", "m", ())
    with tracing.span(SpanName.CHANGE):
        tracing.note({TraceAttribute.REVISION: 1})
    assert tracing.trace_id() == ""


async def test_what_is_not_understood_is_no_reason_not_to_serve(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    async with AsyncExitStack() as stack:
        traces.start(stack, "instance")
        assert not tracing.is_on()
    assert "http/protobuf" in capsys.readouterr().out
