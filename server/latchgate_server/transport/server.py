"""Builds the gRPC servers: the same servicers on grpcio or on pygrpc-native, with health and reflection."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from typing import Any

import grpc
import uvloop
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from latchgate.v1 import admin_service_pb2, admin_service_pb2_grpc, verify_service_pb2
from latchgate_server.transport.admin_service import AdminServicer
from latchgate_server.transport.envoy_reflection import described_services
from latchgate_server.transport.ext_authz import SERVICE as AUTHORIZATION_SERVICE
from latchgate_server.transport.ext_authz import AuthorizationServicer
from latchgate_server.transport.health_service import Health
from latchgate_server.transport.verify_service import VerifyServicer

VERIFY_SERVICE = verify_service_pb2.DESCRIPTOR.services_by_name["VerifyService"].full_name
ADMIN_SERVICE = admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name

_MEBIBYTE = 1024 * 1024
_WRITING_SECONDS = 0.2
_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_receive_message_length", 4 * _MEBIBYTE),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.max_concurrent_streams", 1_000),
)


class Transport(StrEnum):
    """Whose HTTP/2 carries the calls. Nothing outside of this file need know."""

    AUTO = "auto"
    NATIVE = "native"
    GRPCIO = "grpcio"


class NoSuchTransport(Exception):
    """The transport that was asked for is not installed; the message says what to do."""


def choose(wanted: Transport) -> Transport:
    """NATIVE or GRPCIO: what is wanted; for AUTO the native one where it is installed. Raises NoSuchTransport."""
    if wanted is Transport.GRPCIO:
        return Transport.GRPCIO
    if find_spec("pygrpc_native") is not None:
        return Transport.NATIVE
    if wanted is Transport.NATIVE:
        raise NoSuchTransport("LATCHGATE_TRANSPORT=native needs: pip install 'latchgate-server[native]'")
    return Transport.GRPCIO


def new_event_loop(transport: Transport) -> asyncio.AbstractEventLoop:
    """The event loop that suits the transport: uvloop speeds the native one up and slows grpcio down."""
    return uvloop.new_event_loop() if transport is Transport.NATIVE else asyncio.new_event_loop()


def _new_server(transport: Transport, options: Sequence[tuple[str, Any]]) -> grpc.aio.Server:
    if transport is Transport.NATIVE:
        import pygrpc_native.aio  # noqa: PLC0415 - an optional extra

        return pygrpc_native.aio.server(options=options)
    return grpc.aio.server(options=options)


@dataclass(frozen=True, slots=True)
class Listener:
    """Where and how a server listens.

    transport: NATIVE or GRPCIO.
    address: `HOST:PORT`, or `unix:PATH`; port 0 takes a free one.
    reuse_port: whether other processes of ours listen there as well; otherwise a second server on one port is an error,
    not one that answers half of the calls.
    """

    address: str
    transport: Transport
    reuse_port: bool


class Server:
    """One listener with its services, its health and its end."""

    def __init__(self, listener: Listener, *services: str, pool: DescriptorPool | None = None) -> None:
        """services: their full names. pool: what reflection describes them by."""
        options = (*_OPTIONS, ("grpc.so_reuseport", int(listener.reuse_port)))
        self._server = _new_server(listener.transport, options)
        self._health = Health()
        self._services = services
        self._wanted = listener.address
        self._transport = listener.transport
        self._is_stopping = False
        self.address = listener.address
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server, pool=pool)

    @property
    def registrar(self) -> grpc.aio.Server:
        """What generated code adds servicers to."""
        return self._server

    async def start(self) -> None:
        """Bind and listen, NOT_SERVING. Raises OSError where the address cannot be had."""
        try:
            port = self._server.add_insecure_port(self._wanted)
        except RuntimeError as error:
            raise OSError(
                f"cannot listen on {self._wanted}: is it in use, or not an address of this machine?"
            ) from error
        if not self._wanted.startswith("unix:"):
            self.address = f"{self._wanted.rpartition(':')[0]}:{port}"
        self._set_health(False)
        await self._server.start()

    async def set_serving(self) -> None:
        """Turn health to SERVING."""
        self._set_health(True)

    async def set_deciding(self, can_decide: bool) -> None:
        """Turn the health of the services alone, not that of the server as a whole."""
        for service in self._services:
            self._health.set(service, can_decide)

    async def set_draining(self) -> None:
        """Turn health to NOT_SERVING, for good."""
        self._health.drain()

    async def stop(self, grace: float) -> None:
        """Refuse new calls, let those in flight finish for up to `grace` seconds, and close."""
        if self._transport is Transport.NATIVE and not self._is_stopping:
            _let_answers_leave(self._server)
        self._is_stopping = True
        await self._server.stop(grace)

    def _set_health(self, is_serving: bool) -> None:
        for service in ("", *self._services):
            self._health.set(service, is_serving)


def _let_answers_leave(server: Any) -> None:
    """Have a native server wait for a moment between its last answer and the end of its connections.

    The library's own threads write the answers, and its `stop` closes the connections without waiting for them.
    """
    front = server._front  # noqa: SLF001 - the library offers no other place between the two
    if front is not None:  # as it is where the server could not start
        server._front = _PatientFront(front)  # noqa: SLF001


class _PatientFront:
    def __init__(self, front: Any) -> None:
        self._front = front

    def __getattr__(self, name: str) -> Any:
        return getattr(self._front, name)

    def close(self) -> None:
        """Called in a thread of its own, not on the event loop."""
        threading.Event().wait(_WRITING_SECONDS)
        self._front.close()


def verify_server(listener: Listener, servicer: VerifyServicer, authorization: AuthorizationServicer) -> Server:
    """The server of the data plane."""
    server = Server(listener, VERIFY_SERVICE, AUTHORIZATION_SERVICE, pool=described_services())
    for service, handlers in (
        (VERIFY_SERVICE, servicer.handlers()),
        (AUTHORIZATION_SERVICE, authorization.handlers()),
    ):
        generic = grpc.method_handlers_generic_handler(service, handlers)
        server.registrar.add_generic_rpc_handlers((generic,))
        server.registrar.add_registered_method_handlers(service, handlers)
    return server


def admin_server(listener: Listener, servicer: AdminServicer) -> Server:
    """The server of the control plane."""
    server = Server(listener, ADMIN_SERVICE)
    admin_service_pb2_grpc.add_AdminServiceServicer_to_server(servicer, server.registrar)
    return server
