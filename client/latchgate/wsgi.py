"""Middleware for WSGI applications (Flask, Django, …): no request passes without a valid key.

    from latchgate.wsgi import PUBLIC, ApiKeyMiddleware, Route

    app.wsgi_app = ApiKeyMiddleware(app.wsgi_app, "127.0.0.1:50051", routes=[
        Route("/healthz", PUBLIC),
        Route("/orders/*", "orders.read", methods={"GET"}),
    ])

The identity is in `environ["latchgate.identity"]`, the whole decision in `environ["latchgate.verification"]`; no header
can put anything there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Any, Protocol

from latchgate.guard.checks import Asked, asked_over_http
from latchgate.guard.doors import Door, GivenClient
from latchgate.guard.limit_headers import limit_headers
from latchgate.guard.refusals import NOT_FOUND, Refusal
from latchgate.guard.requirements import ANY_KEY, PUBLIC, Needs, Requirement
from latchgate.guard.routes import Route, Routes
from latchgate.results import Verification

__all__ = ["ANY_KEY", "PUBLIC", "ApiKeyMiddleware", "Needs", "Requirement", "Route"]

IDENTITY = "latchgate.identity"
VERIFICATION = "latchgate.verification"

Environ = dict[str, Any]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None] | None


class StartResponse(Protocol):
    """What a server hands to an application (PEP 3333)."""

    def __call__(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo = ..., /
    ) -> Callable[[bytes], object]:
        """Begin an answer."""
        ...


App = Callable[[Environ, Any], Iterable[bytes]]


class ApiKeyMiddleware:
    """A WSGI application that lets through to another what Latchgate allows."""

    def __init__(
        self,
        app: App,
        client: GivenClient,
        *,
        routes: Sequence[Route] | None = None,
        client_ip_header: str | None = None,
    ) -> None:
        """app: the application.

        client: the address of VerifyService, or what makes a client in the process that serves. routes: what needs
        which permission; a path that none of them names is answered 404. None: every path needs a valid key.
        client_ip_header: the header whose word on a client's address is taken, which a proxy of yours overwrites; None:
        the peer that the server reports.
        """
        self._app = app
        self._door = Door(client)
        self._routes = Routes(routes)
        self._client_ip_header = client_ip_header

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        matched = self._routes.match(environ["REQUEST_METHOD"], _text(environ.get("PATH_INFO", "")))
        if matched is None:
            return _refuse(NOT_FOUND, start_response)
        if matched.requirement is None:
            return self._app({**environ, IDENTITY: None, VERIFICATION: None}, start_response)
        asked = self._asked(environ)
        outcome = self._door.decide(asked, matched.requirement, matched.parts)
        if isinstance(outcome, Refusal):
            return _refuse(outcome, start_response)
        hidden = {_variable(name) for name in asked.found.headers}
        passed = {name: value for name, value in environ.items() if name not in hidden}
        passed |= {IDENTITY: outcome.identity, VERIFICATION: outcome}
        return self._app(passed, _telling_limits(start_response, outcome))

    def close(self) -> None:
        """Close the connection to Latchgate."""
        self._door.close()

    def _asked(self, environ: Environ) -> Asked:
        def values(name: str) -> Sequence[str]:
            value = environ.get(_variable(name))
            return () if value is None else (value,)

        return asked_over_http(
            values,
            peer=environ.get("REMOTE_ADDR") or "",
            client_ip_header=self._client_ip_header,
            method=environ["REQUEST_METHOD"],
            path=_text(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")),
        )


def _variable(name: str) -> str:
    """The variable of a header (RFC 3875, section 4.1.18)."""
    return "HTTP_" + name.upper().replace("-", "_")


def _text(value: str) -> str:
    """The text that a server handed over as bytes in Latin-1 (PEP 3333, "Unicode Issues")."""
    return value.encode("latin-1", "replace").decode("utf-8", "replace")


def _telling_limits(start_response: StartResponse, verification: Verification) -> StartResponse:
    """Begins an answer as the application does, with where the key's limits stand."""
    told = limit_headers(verification.limits)
    if not told:
        return start_response

    def telling(status: str, headers: list[tuple[str, str]], exc_info: ExcInfo = None, /) -> Callable[[bytes], object]:
        kept = [(name, value) for name, value in headers if name.lower() not in told]
        return start_response(status, [*kept, *told.items()], exc_info)

    return telling


def _refuse(refusal: Refusal, start_response: StartResponse) -> Iterable[bytes]:
    start_response(f"{refusal.status} {HTTPStatus(refusal.status).phrase}", refusal.http_headers)
    return [refusal.body]
