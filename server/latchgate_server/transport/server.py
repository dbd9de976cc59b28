"""Builds the gRPC servers: the same servicers on grpcio or on pygrpc-native, with health and reflection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from typing import Any

import grpc
import uvloop
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from latchgate.v1 import admin_service_pb2, admin_service_pb2_grpc
from latchgate_server.core.ports import Clock
from latchgate_server.transport.admin_service import AdminServicer
from latchgate_server.transport.caller_key import Metadata
from latchgate_server.transport.doorkeeper import CONNECTIONS
from latchgate_server.transport.envoy_reflection import described_services
from latchgate_server.transport.ext_authz import PATH as AUTHORIZATION_PATH
from latchgate_server.transport.ext_authz import SERVICE as AUTHORIZATION_SERVICE
from latchgate_server.transport.ext_authz import AuthorizationServicer
from latchgate_server.transport.farewell import take_leave
from latchgate_server.transport.grpcio import GrpcioServer
from latchgate_server.transport.health_service import Health
from latchgate_server.transport.sockets import is_served
from latchgate_server.transport.verify_service import SERVICE, VerifyServicer

VERIFY_SERVICE = SERVICE
ADMIN_SERVICE = admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name

_MEBIBYTE = 1024 * 1024
_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_receive_message_length", 4 * _MEBIBYTE),
    ("grpc.max_metadata_size", 16 * 1024),
)
# Calls at once on one connection: enough to keep a processor busy, few enough that a client with more to ask waits at
# home, which costs us nothing. Behind many connections native refuses what waited too long (native.py); grpcio resets
# calls that nobody has taken up, some beyond the first number, all beyond the second.
_NATIVE_OPTIONS: Sequence[tuple[str, Any]] = (("grpc.max_concurrent_streams", 128),)
_GRPCIO_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_concurrent_streams", 32),
    ("grpc.server.max_pending_requests", 128),
    ("grpc.server.max_pending_requests_hard_limit", 256),
    # Beyond that they are closed at once, whoever they are. doorkeeper.py keeps it from coming to that, on native too.
    ("grpc.max_allowed_incoming_connections", 2 * CONNECTIONS),
)


class Transport(StrEnum):
    """Whose HTTP/2 carries the calls. Nothing outside of this file need know."""

    AUTO = "auto"
    NATIVE = "native"
    GRPCIO = "grpcio"


class NoSuchTransport(Exception):
    """The transport that was asked for is not installed; the message says what to do."""


def choose(wanted: Transport, *, with_tls: bool) -> Transport:
    """NATIVE or GRPCIO: what is wanted; for AUTO the native one where it is installed and TLS is not asked for.

    Raises NoSuchTransport.
    """
    if wanted is Transport.NATIVE and with_tls:
        raise NoSuchTransport("LATCHGATE_TRANSPORT=native has no TLS: set LATCHGATE_TRANSPORT=grpcio or auto")
    if wanted is Transport.GRPCIO or with_tls:
        return Transport.GRPCIO
    if find_spec("pygrpc_native") is not None:
        return Transport.NATIVE
    if wanted is Transport.NATIVE:
        raise NoSuchTransport("LATCHGATE_TRANSPORT=native needs: pip install 'latchgate-server[native]'")
    return Transport.GRPCIO


def new_event_loop(transport: Transport) -> asyncio.AbstractEventLoop:
    """The event loop that suits the transport: uvloop speeds the native one up and slows grpcio down."""
    return uvloop.new_event_loop() if transport is Transport.NATIVE else asyncio.new_event_loop()


def _new_server(transport: Transport, clock: Clock, options: Sequence[tuple[str, Any]]) -> Any:
    if transport is Transport.NATIVE:
        from latchgate_server.transport.native import NativeServer  # noqa: PLC0415 - an optional extra

        native = NativeServer(clock, (*options, *_NATIVE_OPTIONS))
        native.never_refuse((health.SERVICE_NAME, reflection.SERVICE_NAME))
        return native
    return GrpcioServer((*options, *_GRPCIO_OPTIONS))


@dataclass(frozen=True, slots=True)
class Listener:
    """Where and how a server listens.

    transport: NATIVE or GRPCIO.
    address: `HOST:PORT`, or `unix:PATH`; port 0 takes a free one.
    reuse_port: whether other processes of ours listen there as well; otherwise a second server on one port is an error,
    not one that answers half of the calls.
    credentials: for TLS, which GRPCIO alone has; None: plaintext.
    connection_age: seconds, a tenth more or less, after which GRPCIO asks a client to open another connection, while
    what it has begun is served; 0: never.
    """

    address: str
    transport: Transport
    reuse_port: bool
    credentials: grpc.ServerCredentials | None = None
    connection_age: float = 0.0


class Server:
    """One listener with its services, its health and its end."""

    def __init__(self, listener: Listener, *services: str, clock: Clock, pool: DescriptorPool | None = None) -> None:
        """services: their full names. pool: what reflection describes them by."""
        options = [*_OPTIONS, ("grpc.so_reuseport", int(listener.reuse_port))]
        if listener.connection_age:
            options.append(("grpc.max_connection_age_ms", round(listener.connection_age * 1_000)))
        self._server: grpc.aio.Server = _new_server(listener.transport, clock, options)
        self._health = Health()
        self._services = services
        self._clock = clock
        self._wanted = listener.address
        self._credentials = listener.credentials
        self._connection_age = listener.connection_age
        self.address = listener.address
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server, pool=pool)

    @property
    def registrar(self) -> grpc.aio.Server:
        """What generated code adds servicers to."""
        return self._server

    def answer_at_once(
        self,
        answers: Mapping[str, Callable[[bytes, Metadata, str], bytes | None]],
        refusals: Mapping[str, Callable[[], bytes]] | None = None,
    ) -> None:
        """Answer these methods, by path, without their handlers where that is possible; before `start`.

        refusals: methods that are refused by an answer, not by an error. grpcio knows neither, and calls the handlers.
        """
        if hasattr(self._server, "answer_at_once"):
            self._server.answer_at_once(answers, refusals or {})

    async def start(self) -> None:
        """Bind and listen, NOT_SERVING. Raises OSError where the address cannot be had."""
        if self._wanted.startswith("unix:") and is_served(self._wanted.removeprefix("unix:")):
            # Both transports would take it over, and remove it when they end: the other would be deaf and not know.
            raise OSError(f"cannot listen on {self._wanted}: a server that runs has it")
        try:
            if self._credentials is None:
                port = self._server.add_insecure_port(self._wanted)
            else:
                port = self._server.add_secure_port(self._wanted, self._credentials)
        except RuntimeError as error:
            doubt = "or not an address of this machine"
            if self._wanted.startswith("unix:"):
                doubt = "or its folder missing, or closed to this user"
            raise OSError(f"cannot listen on {self._wanted}: is it in use, {doubt}?") from error
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

    async def run(self) -> None:
        """Return when the server has stopped. Raises what ended it where nobody stopped it."""
        await self._server.wait_for_termination()

    async def stop(self, grace: float) -> None:
        """Send clients elsewhere, let calls in flight finish for up to `grace` seconds, and close."""
        self._health.end()
        if grace:
            encrypted = self._credentials is not None
            await take_leave(self.address, self._clock, encrypted=encrypted, age=self._connection_age)
        await self._server.stop(grace)

    def _set_health(self, is_serving: bool) -> None:
        for service in ("", *self._services):
            self._health.set(service, is_serving)


def verify_server(
    listener: Listener, servicer: VerifyServicer, authorization: AuthorizationServicer, clock: Clock
) -> Server:
    """The server of the data plane."""
    server = Server(listener, VERIFY_SERVICE, AUTHORIZATION_SERVICE, clock=clock, pool=described_services())
    for service, handlers in (
        (VERIFY_SERVICE, servicer.handlers()),
        (AUTHORIZATION_SERVICE, authorization.handlers()),
    ):
        generic = grpc.method_handlers_generic_handler(service, handlers)
        server.registrar.add_generic_rpc_handlers((generic,))
        server.registrar.add_registered_method_handlers(service, handlers)
    at_once = {f"/{VERIFY_SERVICE}/Verify": servicer.verify_at_once, AUTHORIZATION_PATH: authorization.check_at_once}
    server.answer_at_once(at_once, authorization.refusals())
    return server


def admin_server(listener: Listener, servicer: AdminServicer, clock: Clock) -> Server:
    """The server of the control plane."""
    server = Server(listener, ADMIN_SERVICE, clock=clock)
    admin_service_pb2_grpc.add_AdminServiceServicer_to_server(servicer, server.registrar)
    return server
