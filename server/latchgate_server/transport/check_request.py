"""What Envoy asks, as the core asks it: the headers and the address of a CheckRequest, and what its route requires."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from latchgate.envoy.v1 import ext_authz_pb2
from latchgate_server.core import bounds
from latchgate_server.core.errors import InvalidRequest
from latchgate_server.core.http_names import is_identity_header
from latchgate_server.core.model import Question, RequestInfo
from latchgate_server.core.permissions import MalformedRequirement, parse_requirement
from latchgate_server.core.resources import is_resource
from latchgate_server.transport.fields import Fields

_GRPC = "application/grpc"
_EXTENSIONS = frozenset({"permissions", "capability", "tenant", "resource", "cost"})


class RouteMisconfigured(Exception):
    """What the route requires cannot be understood, or its answer not be given; the message is for operators."""


class Headers:
    """The headers of a request, whichever way Envoy sent them."""

    def __init__(self, http: ext_authz_pb2.AttributeContext.HttpRequest) -> None:
        self._joined: Mapping[str, str] = http.headers
        self._single = [(header.key.lower(), _text(header)) for header in http.header_map.headers]

    def values(self, name: str) -> Sequence[str]:
        """The values of the header of this name, given in lower case; one may be several joined by commas."""
        joined = self._joined.get(name)
        single = [value for key, value in self._single if key == name] if self._single else []
        return single if joined is None else [joined, *single]

    def is_grpc(self) -> bool:
        """Whether the client speaks gRPC."""
        return any(value.startswith(_GRPC) for value in self.values("content-type"))

    def identity_headers(self) -> list[str]:
        """The names of headers that the upstream could take for ours."""
        names: Iterable[str] = self._joined
        if self._single:
            names = [*self._joined, *(key for key, _ in self._single)]
        return [name for name in names if name[:1] == "x" and is_identity_header(name)]


def _text(header: ext_authz_pb2.HeaderValue) -> str:
    # No byte is lost and none refused: what is not ASCII is in no credential and no address.
    return header.raw_value.decode("latin-1") if header.raw_value else header.value


def client_address(attributes: ext_authz_pb2.AttributeContext, headers: Headers, trusted_header: str) -> str:
    """The client's address; empty where there is none.

    trusted_header: the header that alone is believed, where an operator named one; else Envoy's peer is. Where the
    header was repeated it is no address.
    """
    if trusted_header:
        return ",".join(headers.values(trusted_header))
    return attributes.source.address.socket_address.address


def request_info(attributes: ext_authz_pb2.AttributeContext, headers: Headers) -> RequestInfo:
    """What is recorded of the request: without the query, which may hold a credential, ours or another's."""
    http = attributes.request.http
    path = http.path.partition("?")[0]
    told = (http.method, http.host, path, "".join(headers.values("user-agent")[:1]))
    return RequestInfo(*(text[: bounds.REQUEST_INFO_LENGTH] for text in told))


def question_from(attributes: ext_authz_pb2.AttributeContext, headers: Headers, client_ip: str) -> Question:
    """What is asked: what the route requires, by its `context_extensions`. Raises RouteMisconfigured."""
    extensions, request = attributes.context_extensions, request_info(attributes, headers)
    if not extensions:
        return Question(client_ip, request=request)
    of_route = _required(tuple(sorted(extensions.items())))
    return Question(
        client_ip,
        of_route.tenant_id,
        of_route.requirement,
        of_route.capability,
        resource=of_route.resource,
        cost=of_route.cost,
        request=request,
    )


@lru_cache(maxsize=1_024)
def _required(extensions: tuple[tuple[str, str], ...]) -> Question:
    given = dict(extensions)
    for name, value in given.items():
        if name not in _EXTENSIONS:
            raise RouteMisconfigured(f"context_extensions: {_quoted(name)} is none of {', '.join(sorted(_EXTENSIONS))}")
        if not value:
            # Whoever templates a route and gets it wrong must not open it.
            raise RouteMisconfigured(f"context_extensions: {name} is empty")
    try:
        return _parsed(given)
    except MalformedRequirement as error:
        raise RouteMisconfigured(f"context_extensions: permissions: {error}") from None
    except InvalidRequest as error:
        raise RouteMisconfigured(f"context_extensions: {error}") from None


def _parsed(given: Mapping[str, str]) -> Question:
    fields = Fields()
    tenant, capability, resource = given.get("tenant", ""), given.get("capability", ""), given.get("resource", "")
    if tenant:
        fields.tenant_id("tenant", tenant)
    if capability:
        fields.capabilities("capability", [capability])
    if resource and not is_resource(resource):
        fields.wrong("resource", "a path such as sites/berlin/orders")
    cost = given.get("cost", "1")
    if not (cost.isascii() and cost.isdecimal() and len(cost) <= len(str(bounds.COST)) and int(cost) <= bounds.COST):
        fields.wrong("cost", f"a whole number up to {bounds.COST}")
    fields.check()
    permissions = given.get("permissions")
    return Question(
        tenant_id=tenant,
        requirement=parse_requirement(permissions) if permissions else None,
        capability=capability,
        resource=resource,
        cost=int(cost),
    )


def _quoted(text: str) -> str:
    return repr(text[: bounds.QUOTED_LENGTH])
