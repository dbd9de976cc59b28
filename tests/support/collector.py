"""A collector of traces, which OpenTelemetry's exporter speaks OTLP over HTTP to."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue


@dataclass(frozen=True)
class Received:
    """A span, with ids in hexadecimal digits."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    attributes: Mapping[str, Any]
    is_error: bool
    status_message: str
    events: int


def _values(attributes: Sequence[KeyValue]) -> dict[str, Any]:
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in attributes}


class Collector:
    """What has been received so far. bodies: as it came, decompressed."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.spans: list[Received] = []
        self.resources: list[dict[str, Any]] = []
        self.endpoint = ""

    def take(self, body: bytes) -> None:
        self.bodies.append(body)
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(_values(of_resource.resource.attributes))
            for of_scope in of_resource.scope_spans:
                for span in of_scope.spans:
                    self.spans.append(
                        Received(
                            name=span.name,
                            kind=span.kind,
                            trace_id=span.trace_id.hex(),
                            span_id=span.span_id.hex(),
                            parent_id=span.parent_span_id.hex(),
                            attributes=_values(span.attributes),
                            is_error=span.status.code == span.status.STATUS_CODE_ERROR,
                            status_message=span.status.message,
                            events=len(span.events),
                        )
                    )

    def of_trace(self, trace_id: str, names: Callable[[set[str]], bool], seconds: float = 15.0) -> dict[str, Received]:
        """The spans of a trace by name, once their names are the ones wanted."""
        deadline = time.monotonic() + seconds
        while True:
            found = {span.name: span for span in list(self.spans) if span.trace_id == trace_id}
            if names(set(found)):
                return found
            assert time.monotonic() < deadline, f"of {trace_id} there are only {sorted(found)}"
            time.sleep(0.02)


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port of loopback, while the context lasts."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.take(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing: what is received is looked at by tests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.endpoint = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
