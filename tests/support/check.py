"""Envoy's Authorization/Check, called as Envoy does, without Envoy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict

from latchgate.envoy.v1 import ext_authz_pb2 as pb
from tests.support.server import open_channel

METHOD = "/envoy.service.auth.v3.Authorization/Check"


def request(
    headers: Mapping[str, str] | None = None,
    *,
    raw: Sequence[tuple[str, bytes]] = (),
    path: str = "/",
    peer: str = "192.0.2.7",
    route: Mapping[str, str] | None = None,
) -> pb.CheckRequest:
    """A request as Envoy tells of it. raw: headers as `encode_raw_headers` sends them."""
    message = pb.CheckRequest()
    attributes = message.attributes
    attributes.source.address.socket_address.address = peer
    http = attributes.request.http
    http.path = path
    http.headers.update(headers or {})
    for name, value in raw:
        http.header_map.headers.add(key=name, raw_value=value)
    attributes.context_extensions.update(route or {})
    return message


class Answer:
    """What Envoy is told, taken apart."""

    def __init__(self, response: pb.CheckResponse) -> None:
        self.response = response
        self.kind = response.WhichOneof("http_response") or ""
        assert response.HasField("status"), "a missing status lets the request in"
        assert (response.status.code == 0) == (self.kind == "ok_response")
        told = getattr(response, self.kind)
        for option in told.headers:
            assert option.append_action == pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
            assert not option.HasField("append")
            assert option.header.key == option.header.key.lower()
        self.headers = {option.header.key: option.header.value for option in told.headers}
        assert len(self.headers) == len(told.headers)
        self.metadata: dict[str, Any] = MessageToDict(response.dynamic_metadata)

    @property
    def allowed(self) -> bool:
        return self.kind == "ok_response"

    @property
    def http(self) -> int:
        """The status that a client sees; 200 for a request that may pass."""
        return 200 if self.allowed else int(getattr(self.response, self.kind).status.code)

    @property
    def body(self) -> str:
        return str(getattr(self.response, self.kind).body)

    @property
    def removed(self) -> set[str]:
        return set(self.response.ok_response.headers_to_remove)


class Check:
    """Authorization/Check, over a channel of its own: `check(headers, route=…)`."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        self._channel = open_channel(address, credentials)
        self._call = self._channel.unary_unary(METHOD, pb.CheckRequest.SerializeToString, pb.CheckResponse.FromString)
        self._raw_call: grpc.UnaryUnaryMultiCallable[bytes, pb.CheckResponse] = self._channel.unary_unary(
            METHOD, None, pb.CheckResponse.FromString
        )

    def __call__(self, headers: Mapping[str, str] | None = None, **fields: Any) -> Answer:
        """The answer to a request with these headers; the rest as `request` says."""
        return self.ask(request(headers, **fields))

    def ask(
        self, message: pb.CheckRequest, timeout: float | None = 20, metadata: tuple[tuple[str, str | bytes], ...] = ()
    ) -> Answer:
        """The answer to a request. metadata: what Envoy sends along."""
        return Answer(self._call(message, timeout=timeout, metadata=metadata))

    def ask_raw(self, message: bytes) -> Answer:
        """The answer to bytes that may be no request."""
        return Answer(self._raw_call(message, timeout=20))

    def close(self) -> None:
        self._channel.close()
