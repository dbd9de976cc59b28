"""The properties that are fuzzed, each a function of one random value. A finding is an assertion that fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from hypothesis import strategies as st

from latchgate.envoy.v1 import ext_authz_pb2
from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1.decision_pb2 import DECISION_ALLOW
from latchgate.v1.verify_service_pb2 import BatchVerifyRequest, VerifyRequest, VerifyResponse
from latchgate_server.core.credential_sources import CredentialSources
from latchgate_server.core.key_format import has_key_id_form, is_genuine_key_id, is_whole_secret, parse
from latchgate_server.core.permissions import Grants, MalformedRequirement, parse_requirement, render_requirement
from tests.conformance.contract import METHODS
from tests.fuzz.messages import messages
from tests.fuzz.world import ORDERLY, World, ended, spared, told

CALLERS = ("root", "tenant")
CHECK = "/envoy.service.auth.v3.Authorization/Check"
VERIFY = "/latchgate.v1.VerifyService/Verify"
BATCH_VERIFY = "/latchgate.v1.VerifyService/BatchVerify"
ADMIN = "/latchgate.v1.AdminService/"
_AT_ONCE_SECONDS = 1.0
_SOURCES = CredentialSources.parse("x-api-key,authorization,basic,query:key,pair:x-id,x-secret")
_EXPRESSIONS = st.lists(
    st.sampled_from(["a", "orders.read", "AND", "OR", "NOT", "(", ")", "*", "a..b", ".", "\t", "é"]), max_size=60
).map(" ".join)
_ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=200)

Target = tuple[str, st.SearchStrategy[Any], Callable[[Any], None]]
"""A name, what is drawn, and what must hold of it."""


# Parsers --------------------------------------------------------------------------------------------------------------


def credential(text: str) -> None:
    """Taking a credential apart never raises, and puts nothing there that was not."""
    presented = parse(text)
    if presented is None:
        return
    assert text in (presented.key_id, f"{presented.key_id}.{presented.secret or ''}")
    assert not is_genuine_key_id(presented.key_id, b"a key that made no tag in this test") or has_key_id_form(
        presented.key_id
    )
    is_whole_secret(presented.key_id, presented.secret or "")
    assert len(text) < 12 or presented.key_id not in repr(presented)


def requirement(text: str) -> None:
    """An expression parses to one that says the same, or is refused, in no time."""
    began = time.monotonic()
    try:
        parsed = parse_requirement(text)
    except MalformedRequirement:
        parsed = None
    assert time.monotonic() - began < _AT_ONCE_SECONDS
    if parsed is not None:
        again = parse_requirement(render_requirement(parsed))
        for grants in (Grants([]), Grants(["*"]), Grants(["a"]), Grants(["orders.*"])):
            assert again.satisfied_by(grants) == parsed.satisfied_by(grants)


def sources(request: tuple[dict[str, list[str]], str]) -> None:
    """Looking for a credential in a request never raises, and never finds what is not in it."""
    headers, path = request
    found = _SOURCES.find(lambda name: headers.get(name, ()), path)
    assert found.credential not in repr(found) or len(found.credential) < 3


_REQUESTS = st.tuples(
    st.dictionaries(
        st.sampled_from(["x-api-key", "authorization", "x-id", "x-secret"]),
        st.lists(_ANY_TEXT | st.sampled_from(["Bearer a.b", "Basic YTpi", "Basic ===", "a,b", ""]), max_size=3),
    ),
    _ANY_TEXT | st.sampled_from(["/?key=a", "/?k%65y=a&key=b", "/?key=%", "?", "/?key", "/?=&&=&key=%ff"]),
)

PARSERS: tuple[Target, ...] = (
    ("credential parser", _ANY_TEXT | st.text("lg_0Az.", max_size=90), credential),
    ("expression language", _EXPRESSIONS | _ANY_TEXT, requirement),
    ("credential sources", _REQUESTS, sources),
)


# The network ----------------------------------------------------------------------------------------------------------


class DataPlane:
    """VerifyService and Envoy's Authorization of a running server, and what they are asked."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._channel = grpc.insecure_channel(world.server.verify_address)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def targets(self) -> Iterator[Target]:
        """All of them."""
        world = self._world
        headers = [world.key_string, f"Bearer {world.key_string}", world.key_id, world.key_string[:-1] + "~"]
        words = world.words() | {
            "key": [*headers, "x-api-key", "authorization", "permissions", "tenant", "cost"],
            "value": [*headers, "orders.read", world.tenant_id],
            "path": ["/", "/orders?api_key=1"],
            "required_permissions": ["orders.read", "orders.read AND NOT b", "("],
        }
        check, verify = ext_authz_pb2.CheckRequest.DESCRIPTOR, VerifyRequest.DESCRIPTOR
        yield "CheckRequest", messages(check, words).map(_serialized), self._check
        yield "CheckRequest, any bytes", st.binary(max_size=300), self._check
        yield "VerifyRequest", messages(verify, words).map(_serialized), self._verify
        yield "VerifyRequest, any bytes", st.binary(max_size=300), self._verify
        yield "BatchVerifyRequest", messages(BatchVerifyRequest.DESCRIPTOR, words).map(_serialized), self._batch

    def _check(self, request: bytes) -> None:
        answer = self._ask(CHECK, request)
        if answer is None:
            return
        response = ext_authz_pb2.CheckResponse.FromString(answer)
        assert response.HasField("status"), "Envoy takes an answer without one for ALLOW"
        self._allowed(request, response.status.code == 0)

    def _verify(self, request: bytes) -> None:
        answer = self._ask(VERIFY, request)
        if answer is not None:
            self._allowed(request, VerifyResponse.FromString(answer).decision == DECISION_ALLOW)

    def _batch(self, request: bytes) -> None:
        self._ask(BATCH_VERIFY, request)

    def _allowed(self, request: bytes, is_allowed: bool) -> None:
        """Nothing is allowed to whom the secret is not known."""
        assert not is_allowed or self._world.key_string.encode() in request

    def _ask(self, path: str, request: bytes) -> bytes | None:
        call: Any = self._channel.unary_unary(path)
        answer, refused = ended(lambda: call(request, timeout=20))
        if refused is not None:
            assert path != CHECK or _is_unparsed(refused), "an error would let Envoy fail open"
            assert refused.code in ORDERLY or _is_unparsed(refused), refused
        assert not told(answer, refused)
        return bytes(answer) if refused is None else None


class ControlPlane:
    """AdminService of a running server, and what it is asked."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._channel = grpc.insecure_channel(world.server.admin_address)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def targets(self) -> Iterator[Target]:
        """Every call, by every caller; and of bytes."""
        for method, descriptor in METHODS.items():
            for caller in CALLERS:
                requests = st.deferred(lambda kind=descriptor.input_type: messages(kind, self._world.words()))  # type: ignore[misc]  # a lambda's default has no type
                yield f"{method} by {caller}", requests, self._calling(method, caller)
            yield f"{method}, any bytes", st.binary(max_size=200), self._sending(method)

    def _calling(self, method: str, caller: str) -> Callable[[Any], None]:
        def call(request: Any) -> None:
            world = self._world
            response, refused = ended(lambda: getattr(world.caller(caller), method)(spared(request)))
            assert refused is None or refused.code in ORDERLY, refused
            if caller == "tenant" and refused is not None and refused.code is grpc.StatusCode.UNAUTHENTICATED:
                world.renew()
            if isinstance(response, pb.CreateKeyResponse | pb.RotateKeyResponse):
                world.victims.append(response.key.key_id)
                world.keep(response.key_string)
                response.ClearField("key_string")
            assert not world.secrets.intersection(told(response, refused, refused and refused.raw))

        return call

    def _sending(self, method: str) -> Callable[[bytes], None]:
        send: Any = self._channel.unary_unary(ADMIN + method)
        # Somebody who may do nothing: random bytes can happen to be a request.
        metadata = [("authorization", f"Bearer {self._world.key_string}")]

        def call(request: bytes) -> None:
            _, refused = ended(lambda: send(request, metadata=metadata, timeout=20))
            assert refused is not None
            assert refused.code in ORDERLY or _is_unparsed(refused), refused

        return call


def _serialized(message: Any) -> bytes:
    return bytes(message.SerializeToString())


def _is_unparsed(refused: Any) -> bool:
    return refused.code is grpc.StatusCode.UNKNOWN and "DecodeError" in refused.message
