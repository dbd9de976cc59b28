"""What the clients of AdminService do when something fails on its way, and what they show of secrets: nothing."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from typing import Any

import grpc
import pytest

from latchgate import AdminClient, CallFailed, KeyStringLost, LatchgateError, Overloaded, Unavailable
from latchgate.admin import ImportedKey
from latchgate.retries import ATTEMPTS
from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2
from tests.client.acting import ADMIN_SERVICE, acting
from tests.client.blocking import open_admin
from tests.support.server import ServerProcess

SECRET = "lg_0000000000000000000000.T0pS3cr3t"


class Stage:
    """A server whose first answers to each RPC fail."""

    def __init__(self, failures: int, code: grpc.StatusCode) -> None:
        self.requests: list[Any] = []
        self.metadata: list[Any] = []
        self._failures, self._code = failures, code

    def handlers(self) -> dict[str, Any]:
        names = [method.name for method in pb.DESCRIPTOR.services_by_name["AdminService"].methods]
        return {name: self._handler(name) for name in names}

    def _handler(self, name: str) -> Any:
        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            self.requests.append(request)
            self.metadata.append(dict(context.invocation_metadata()))
            if len(self.requests) <= self._failures:
                context.abort(self._code, "gone")
            response = getattr(pb, f"{name}Response")()
            if "key_string" in response.DESCRIPTOR.fields_by_name and not self._failures:
                response.key_string = SECRET
            return response

        return grpc.unary_unary_rpc_method_handler(
            answer, getattr(pb, f"{name}Request").FromString, lambda response: response.SerializeToString()
        )


@pytest.fixture
def stage() -> Iterator[Callable[..., tuple[Stage, str]]]:
    with ExitStack() as stack:

        def start(failures: int = 0, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> tuple[Stage, str]:
            playing = Stage(failures, code)
            return playing, stack.enter_context(acting(ADMIN_SERVICE, playing.handlers()))

        yield start


@pytest.fixture(params=["AdminClient", "AsyncAdminClient"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def tried(stage: Any, kind: str, call: Callable[[AdminClient], Any], failures: int = 1) -> list[Any]:
    """The requests that arrived of a call whose first tries fail."""
    acting, address = stage(failures)
    with open_admin(kind, address, SECRET) as client, suppress(LatchgateError):
        call(client)
    requests: list[Any] = acting.requests
    return requests


@pytest.mark.parametrize(
    "call",
    [
        lambda admin: admin.get_key("lg_1"),
        lambda admin: list(admin.list_keys()),
        lambda admin: admin.explain_key("lg_1"),
        lambda admin: admin.disable_key("lg_1"),
        lambda admin: admin.revoke_key("lg_1"),
        lambda admin: admin.update_key("lg_1", owner="ada"),
        lambda admin: admin.batch_revoke_keys(owner="ada", dry_run=True),
        lambda admin: admin.import_keys([ImportedKey(sha256=bytes(32))], dry_run=True),
        lambda admin: admin.report_leaked_keys(["garbage"]),
        lambda admin: admin.reset_limit("calls", tenant="acme", remaining=3),
    ],
)
def test_what_comes_to_the_same_when_done_twice_is_tried_again(stage: Any, kind: str, call: Any) -> None:
    first, second = tried(stage, kind, call)
    assert first == second


@pytest.mark.parametrize(
    "call",
    [
        lambda admin: admin.create_tenant("acme"),
        lambda admin: admin.create_plan("pro"),
        lambda admin: admin.create_role("reader"),
        lambda admin: admin.update_key("lg_1", owner="ada", etag="7"),
        lambda admin: admin.update_tenant("acme", display_name="Acme", etag="7"),
        lambda admin: admin.delete_key("lg_1"),
        lambda admin: admin.delete_tenant("acme"),
        lambda admin: admin.batch_revoke_keys(owner="ada"),
        lambda admin: admin.import_keys([ImportedKey(sha256=bytes(32))]),
    ],
)
def test_what_a_second_try_would_tell_wrongly_is_not_tried_again(stage: Any, kind: str, call: Any) -> None:
    assert len(tried(stage, kind, call)) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda admin: admin.create_key(tenant="acme"),
        lambda admin: admin.rotate_key("lg_1", grace_period=timedelta(days=1)),
    ],
)
def test_a_key_is_made_once_however_often_it_is_tried(stage: Any, kind: str, call: Any) -> None:
    requests = tried(stage, kind, call, failures=ATTEMPTS - 1)
    assert len(requests) == ATTEMPTS
    assert len({request.request_id for request in requests}) == 1
    assert requests[0].request_id
    another, *_ = tried(stage, kind, call)
    assert another.request_id != requests[0].request_id


def test_a_key_whose_string_was_lost_on_its_way_is_told_of(stage: Any, kind: str) -> None:
    _, address = stage(1)
    with open_admin(kind, address, SECRET) as client, pytest.raises(KeyStringLost):
        client.create_key(tenant="acme")


def test_nothing_but_unavailable_is_tried_again(stage: Any, kind: str) -> None:
    acting, address = stage(1, grpc.StatusCode.RESOURCE_EXHAUSTED)
    with open_admin(kind, address, SECRET) as client, pytest.raises(Overloaded):
        client.get_key("lg_1")
    assert len(acting.requests) == 1


def test_whom_a_call_is_made_for_travels_with_it(stage: Any, kind: str) -> None:
    acting, address = stage()
    with open_admin(kind, address, SECRET, on_behalf_of="ada") as client:
        client.get_key("lg_1")
    assert acting.metadata[0]["authorization"] == f"Bearer {SECRET}"
    assert acting.metadata[0]["x-latchgate-on-behalf-of"] == "ada"


def test_a_change_waits_for_a_server_no_longer_than_a_question(kind: str) -> None:
    with open_admin(kind, "127.0.0.1:1", SECRET, timeout=0.3) as client:
        for call in (lambda: client.get_key("lg_1"), lambda: client.disable_key("lg_1")):
            began = time.monotonic()
            with pytest.raises(Unavailable, match=r"no (answer|connection).* 127\.0\.0\.1:1"):
                call()
            assert time.monotonic() - began < 5


def test_a_change_may_take_longer_than_a_question(kind: str, root_key_and_server: tuple[str, ServerProcess]) -> None:
    root_key, server = root_key_and_server
    with open_admin(kind, server.admin_address, root_key, change_timeout=0.000_1) as client:
        assert list(client.list_tenants())
        with pytest.raises(Unavailable):
            client.create_plan("never")


@pytest.mark.parametrize("key", ["two lines\nof it", "T0pS3cr3t with spaces", "T0pS3cr3t\u00fc", "T0pS3cr3t\n"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ValueError, match="key: one line") as refused:
        AdminClient("127.0.0.1:1", key)
    assert "T0pS3cr3t" not in str(refused.value)


def test_no_key_string_is_in_a_repr_a_log_or_an_error(
    stage: Any, kind: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []
    _, address = stage()
    with open_admin(kind, address, SECRET) as client:
        texts += [repr(client), repr(client.on_behalf_of("ada"))]
        made = client.create_key(tenant="acme")
        rotated = client.rotate_key("lg_1", grace_period=timedelta())
        assert made.key_string == rotated.key_string == SECRET
        texts += [
            repr(made),
            str(made),
            repr(rotated),
            repr(client.list_keys()),
            repr(client.report_leaked_keys([SECRET])),
        ]
    texts.append(repr(ImportedKey(tenant="acme", argon2=SECRET)))
    texts.append(repr(ImportedKey(tenant="acme", sha256=SECRET.encode())))
    calls: list[Callable[[AdminClient], Any]] = [
        lambda admin: admin.create_key(),
        lambda admin: admin.report_leaked_keys([SECRET]),
        lambda admin: admin.delete_key(SECRET),
    ]
    for call in calls:
        _, address = stage(ATTEMPTS)
        with open_admin(kind, address, SECRET) as client, pytest.raises(CallFailed) as failed:
            call(client)
        texts += ["".join(traceback.format_exception(failed.value)), repr(failed.value), repr(vars(failed.value))]
    texts += [caplog.text, *capfd.readouterr()]
    assert "T0pS3cr3t" not in "".join(texts)


def test_a_limit_of_a_sort_that_is_newer_than_the_client_is_not_left_out() -> None:
    from latchgate.admin.key import key_from

    with pytest.raises(LatchgateError, match="does not know"):
        key_from(key_pb2.Key(limits=[key_pb2.Limit(name="odd")]))
