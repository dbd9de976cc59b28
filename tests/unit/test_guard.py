"""What the client's middleware has in common: where a key is, what a route requires, what a client is told.

The middleware answers as Envoy does, and shares no code with the server's core, so some of this compares the two.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchgate import CallFailed, Identity, InvalidRequest, NotAuthenticated, Unavailable, Verification
from latchgate.guard import refusals
from latchgate.guard.checks import Asked, Failures, query_for, refusal_of
from latchgate.guard.credentials import CHALLENGE, Found, find_key
from latchgate.guard.refusals import CODES, STATUSES
from latchgate.guard.requirements import ANY_KEY, PUBLIC, Needs, Requirement
from latchgate.guard.routes import Route, Routes
from latchgate_server.config import Settings
from latchgate_server.core.credential_sources import CredentialSources
from latchgate_server.core.http_denials import HttpDenials
from latchgate_server.core.model import DenialReason
from latchgate_server.transport.check_response import _GRPC_CODES
from tests.unit.strategies import ANY_TEXT

SOURCES = CredentialSources.parse(Settings.model_fields["credential_sources"].default)
KEY = "lg_0123456789abcdefghijkl.secret"
IDENTITY = Identity(
    key_id="lg_0123456789abcdefghijkl",
    tenant="acme",
    name="",
    owner="",
    user="",
    roles=(),
    permissions=(),
    capabilities=(),
    resources=(),
    claims={},
    environment="",
    tags={},
    expire_time=None,
)


# What a client is told.


def test_a_denial_is_told_as_envoys_clients_are_told() -> None:
    denials = HttpDenials({})
    for reason in filter(None, DenialReason):
        told, expected = refusals.denied(Verification(allowed=False, reason=reason.name)), denials.of(reason)
        assert (told.status, told.code) == (expected.status, expected.code), reason
    assert STATUSES.keys() == {reason.name for reason in DenialReason if reason}
    assert STATUSES.keys() >= CODES.keys()


@pytest.mark.parametrize("name", ["unavailable", "ambiguous", "misconfigured"])
def test_what_is_no_denial_is_told_as_envoys_clients_are_told(name: str) -> None:
    ours = {"unavailable": refusals.unavailable(), "ambiguous": refusals.AMBIGUOUS}
    told, expected = ours.get(name, refusals.MISCONFIGURED), getattr(HttpDenials({}), name)
    assert (told.status, told.code, told.message) == (expected.status, expected.code, expected.message)
    assert told.body.decode() == HttpDenials({}).body(expected)


def test_the_challenge_and_the_codes_of_grpc_are_envoys() -> None:
    assert SOURCES.challenge == CHALLENGE
    for status in (*STATUSES.values(), 503):
        assert refusals.Refusal(status, "", "", {}).grpc_code is _GRPC_CODES[status]


def test_a_reason_that_a_newer_server_has_is_a_denial_like_any_other() -> None:
    told = refusals.denied(Verification(allowed=False, reason="17", message="Not on a Sunday."))
    assert (told.status, told.code) == (403, "FORBIDDEN")
    assert json.loads(told.body) == {"Code": "FORBIDDEN", "Message": "Not on a Sunday."}


@pytest.mark.parametrize(("seconds", "told"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.001, "2"), (90.0, "90")])
def test_waiting_is_told_in_whole_seconds_that_suffice(seconds: float, told: str) -> None:
    limited = Verification(allowed=False, reason="RATE_LIMITED", retry_after=seconds)
    assert refusals.denied(limited).headers["retry-after"] == told
    assert refusals.unavailable(seconds).headers["retry-after"] == told


def test_waiting_is_not_told_where_it_does_not_help() -> None:
    assert "retry-after" not in refusals.denied(Verification(allowed=False, reason="QUOTA_EXCEEDED")).headers


# What an answer means: nobody passes but who is allowed, and known.


def test_only_who_is_allowed_and_known_passes() -> None:
    allowed = Verification(allowed=True, identity=IDENTITY)
    assert refusal_of(allowed) is None
    for verification in (replace(allowed, allowed=False), replace(allowed, identity=None), Verification(allowed=False)):
        assert refusal_of(verification) is not None


@pytest.mark.parametrize("error", [Unavailable, NotAuthenticated, CallFailed])
def test_who_cannot_be_decided_about_is_asked_to_try_again(error: type[CallFailed], caplog: Any) -> None:
    failures = Failures()
    for _ in range(3):
        told = failures.refusal_for(error(grpc.StatusCode.UNKNOWN, "no idea", retry_after=7.0), ANY_KEY)
        assert (told.status, told.headers["retry-after"]) == (503, "7")
    assert len(caplog.records) == 1, "one line, not one for each request"


def test_a_question_that_cannot_be_asked_is_the_routes_fault_unless_a_clients_path_is_in_it() -> None:
    error = InvalidRequest(grpc.StatusCode.UNKNOWN, "resource: too long")
    assert Failures().refusal_for(error, Requirement(permissions="(")) is refusals.MISCONFIGURED
    assert Failures().refusal_for(error, Requirement(resource="sites/{site}")) is refusals.NOT_FOUND


def test_who_protects_one_framework_needs_no_other() -> None:
    modules = "latchgate, latchgate.asgi, latchgate.wsgi, latchgate.interceptors"
    program = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert not {"fastapi", "starlette", "flask", "werkzeug", "pydantic"} & set(done.stdout.split())


# Where the key is.

PART = st.sampled_from(
    [
        "",
        "a",
        "b",
        "Bearer a",
        "ApiKey b",
        "bEARER  a ",
        "Bearer",
        "Basic YTpi",
        KEY,
        f"Bearer {KEY}",
        f"Basic {KEY}",
        " \t",
    ]
)
VALUE = st.lists(PART | ANY_TEXT, max_size=3).map(",".join)
HEADERS = st.dictionaries(st.sampled_from(["x-api-key", "api-key", "authorization"]), st.lists(VALUE, max_size=3))


@given(HEADERS)
def test_a_key_is_found_where_envoys_side_finds_it(headers: dict[str, list[str]]) -> None:
    def values(name: str) -> Sequence[str]:
        return headers.get(name, ())

    ours, theirs = find_key(values), SOURCES.find(values, "/")
    assert (ours.key, ours.is_ambiguous) == (theirs.credential, theirs.is_ambiguous)
    assert set(ours.headers) == set(theirs.headers)
    assert "secret" not in repr(ours)


@given(ANY_TEXT, ANY_TEXT)
def test_whatever_a_client_writes_can_be_asked(key: str, text: str) -> None:
    asked = Asked(Found(key=key), text, text, text, text, text)
    query = query_for(asked, Requirement(resource="{site}", tenant="{tenant}"), {"site": text, "tenant": text})
    if isinstance(query, refusals.Refusal):
        assert query is refusals.NOT_FOUND
    else:
        assert query.to_message().ByteSize() < 100_000


# What a route requires.


def matched(path: str, *routes: Route, method: str = "GET") -> Any:
    return Routes(routes).match(method, path)


@pytest.mark.parametrize(
    ("pattern", "path", "parts"),
    [
        ("/", "/", {}),
        ("/", "", {}),
        ("/orders", "/orders", {}),
        ("/orders/{order}", "/orders/7", {"order": "7"}),
        ("/orders/{order}/lines/{line}", "/orders/7/lines/8", {"order": "7", "line": "8"}),
        ("/orders/*", "/orders/7/lines", {}),
        ("/orders/*", "/orders/", {}),
        ("/{tenant}/*", "/acme/a/b", {"tenant": "acme"}),
        ("/*", "/", {}),
        ("/*", "/anything/at/all", {}),
        ("/a.c", "/a.c", {}),
    ],
)
def test_a_route_is_for_these_paths(pattern: str, path: str, parts: dict[str, str]) -> None:
    assert matched(path, Route(pattern, ANY_KEY)).parts == parts


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/orders", "/orders/"),
        ("/orders", "/orders/7"),
        ("/orders", "/Orders"),
        ("/orders", "//orders"),
        ("/orders/*", "/orders"),
        ("/orders/*", "/ordersandmore"),
        ("/orders/{order}", "/orders/"),
        ("/orders/{order}", "/orders/7/8"),
        ("/a.c", "/abc"),
        # Starlette's router takes a path with a line break at its end for the one without.
        ("/*", "/orders\n"),
        ("/*", "/orders\x00"),
    ],
)
def test_a_route_is_for_no_other_path(pattern: str, path: str) -> None:
    assert matched(path, Route(pattern, PUBLIC)) is None


def test_the_first_route_that_matches_decides() -> None:
    routes = (Route("/orders/public", PUBLIC), Route("/orders/*", "orders.read", methods={"get"}), Route("/*", ANY_KEY))
    assert matched("/orders/public", *routes).requirement is None
    assert matched("/orders/7", *routes).requirement.permissions == "orders.read"
    assert matched("/orders/7", *routes, method="HEAD").requirement.permissions == "orders.read"
    assert matched("/orders/7", *routes, method="DELETE").requirement == ANY_KEY


def test_without_routes_every_path_needs_a_key() -> None:
    found = Routes(None).match("PATCH", "/anything")
    assert found is not None
    assert found.requirement == ANY_KEY


def test_with_routes_what_none_of_them_names_is_not_there() -> None:
    assert matched("/orders", Route("/orders", "orders.read"), method="GET") is not None
    assert matched("/other", Route("/orders", "orders.read")) is None
    assert Routes(()).match("GET", "/") is None


@pytest.mark.parametrize("path", ["", "orders", "/a*", "/*/b", "/a{b}", "/{}", "/{a.b}", "/{a}}", "/{a}/{a}"])
def test_what_is_no_path_is_refused_at_the_start(path: str) -> None:
    with pytest.raises(ValueError, match=r"expected|a part is"):
        Route(path, ANY_KEY)


@pytest.mark.parametrize(
    ("needs", "methods"),
    [("", None), (" ", None), (Requirement(resource="sites/{site}"), None), (ANY_KEY, "GET")],
)
def test_what_would_open_a_route_by_mistake_is_refused_at_the_start(needs: Needs, methods: Any) -> None:
    with pytest.raises(ValueError, match=r"empty permission|no part site|set of methods"):
        Route("/orders", needs, methods=methods)


@pytest.mark.parametrize("text", ["{", "}", "{}", "{a.b}", "sites/{0}", "sites/{site"])
def test_a_brace_that_stands_for_nothing_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(ValueError, match="brace"):
        Requirement(resource=text)


def test_a_path_fills_in_what_is_required_and_never_less() -> None:
    requirement = Requirement(tenant="{tenant}", resource="sites/{site}/orders")
    assert requirement.filled({"tenant": "acme", "site": "{site}"}) == ("acme", "sites/{site}/orders")
    assert requirement.filled({"tenant": "", "site": "berlin"}) is None
    asked = Asked(Found(key="a"), "")
    assert query_for(asked, requirement, {"tenant": "", "site": "berlin"}) is refusals.NOT_FOUND
    assert query_for(asked, requirement, {"site": "berlin"}) is refusals.MISCONFIGURED
