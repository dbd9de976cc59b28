"""A service that never heard of Latchgate: it answers with what it was told of who calls."""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_TOLD = ("x-latchgate-", "x-api-key", "authorization")


class _Orders(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer."""
        told = [f"  {name}: {value}\n" for name, value in sorted(self.headers.items()) if name.startswith(_TOLD)]
        body = f"upstream saw {self.path}\n{''.join(told)}".encode()
        self.send_response(200)
        self.send_header("content-type", "text/plain")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet: the transcript is what counts."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), _Orders).serve_forever()
