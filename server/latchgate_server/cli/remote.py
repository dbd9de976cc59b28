"""Calls of a running server: where it is, whose key goes along, and how long an answer may take."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self, TypeVar

import grpc

from latchgate.v1 import verify_service_pb2 as pb
from latchgate.v1.admin_service_pb2_grpc import AdminServiceStub
from latchgate.v1.verify_service_pb2_grpc import VerifyServiceStub
from latchgate_server.cli.connection import open_channel
from latchgate_server.cli.failures import fail
from latchgate_server.cli.refusals import Called, refused_parts, told

ADMIN_ADDRESS = "LATCHGATE_ADMIN_ADDRESS"
VERIFY_ADDRESS = "LATCHGATE_VERIFY_ADDRESS"
ADMIN_KEY = "LATCHGATE_ADMIN_KEY"
ADMIN_KEY_FILE = "LATCHGATE_ADMIN_KEY_FILE"
VERIFY_KEY = "LATCHGATE_VERIFY_KEY"
VERIFY_KEY_FILE = "LATCHGATE_VERIFY_KEY_FILE"
DEFAULTS = {ADMIN_ADDRESS: "127.0.0.1:50052", VERIFY_ADDRESS: "127.0.0.1:50051"}

READ_SECONDS = 15.0
CHANGE_SECONDS = 90.0
"""A change may have to wait until the leases of replicas that are gone have run out."""

PAGE_SIZE = 200
_ADDRESS = re.compile(r"unix:.+|[^/\s]+:\d{1,5}")
_KEY_FILE_BYTES = 4_096

Request = TypeVar("Request")
Response = TypeVar("Response")
ListRequest = TypeVar("ListRequest", bound="_ListRequest")
ListResponse = TypeVar("ListResponse", bound="_ListResponse")


class _ListRequest(Protocol):
    page_size: int
    page_token: str


class _ListResponse(Protocol):
    next_page_token: str

    def MergeFrom(self, other_msg: Self) -> None:  # noqa: N802 - protobuf's name
        ...


@dataclass(frozen=True, slots=True)
class CallerKey:
    """The caller's key, and where it came from. The key string is never in the `repr`."""

    key_string: str = field(repr=False)
    source: str

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What tells the server who calls; nothing where there is no key."""
        return (("authorization", f"Bearer {self.key_string}"),) if self.key_string else ()


@dataclass(frozen=True, slots=True)
class Admin:
    """AdminService, called with an administrator's key."""

    stub: AdminServiceStub
    address: str
    key: CallerKey

    def read(self, rpc: grpc.UnaryUnaryMultiCallable[Request, Response], request: Request) -> Response:
        """Call an RPC that changes nothing. Ends the command where the call fails."""
        return self._call(rpc, request, READ_SECONDS, changes=False)

    def read_list(
        self,
        rpc: grpc.UnaryUnaryMultiCallable[ListRequest, ListResponse],
        request: ListRequest,
        entries: Callable[[ListResponse], Sized],
        limit: int | None,
    ) -> ListResponse:
        """Call an RPC that lists, page by page, and return the pages as one.

        entries: those of a page. limit: how many to read; None: all. next_page_token then tells whether there are more.
        """
        request.page_size = _page_size(limit, 0)
        whole = self.read(rpc, request)
        while whole.next_page_token and (limit is None or len(entries(whole)) < limit):
            request.page_token = whole.next_page_token
            request.page_size = _page_size(limit, len(entries(whole)))
            page = self.read(rpc, request)
            whole.MergeFrom(page)
            whole.next_page_token = page.next_page_token
        return whole

    def change(self, rpc: grpc.UnaryUnaryMultiCallable[Request, Response], request: Request) -> Response:
        """Call an RPC that changes something. Ends the command where the call fails."""
        return self._call(rpc, request, CHANGE_SECONDS, changes=True)

    def attempt(
        self, rpc: grpc.UnaryUnaryMultiCallable[Request, Response], request: Request, *, changes: bool
    ) -> Response | list[tuple[str, str]]:
        """Call an RPC; where parts of the request are refused, return those parts and why, in place of an answer.

        Ends the command where the call fails for another reason.
        """
        metadata = self.key.metadata
        try:
            return rpc(request, metadata=metadata, timeout=CHANGE_SECONDS)
        except grpc.RpcError as error:
            parts = refused_parts(error)
            if parts:
                return parts
            fail(told(error, Called(self.address, ADMIN_ADDRESS, CHANGE_SECONDS, changes, self.key.source)))

    def _call(
        self, rpc: grpc.UnaryUnaryMultiCallable[Request, Response], request: Request, seconds: float, *, changes: bool
    ) -> Response:
        metadata = self.key.metadata
        try:
            return rpc(request, metadata=metadata, timeout=seconds)
        except grpc.RpcError as error:
            fail(told(error, Called(self.address, ADMIN_ADDRESS, seconds, changes, self.key.source)))


@contextmanager
def administration() -> Iterator[Admin]:
    """AdminService as the environment describes it, while the context lasts."""
    address, key = _address(ADMIN_ADDRESS), _admin_key()
    with open_channel(address) as channel:
        yield Admin(AdminServiceStub(channel), address, key)


def verify(request: pb.VerifyRequest) -> pb.VerifyResponse:
    """Ask VerifyService for a decision. Ends the command where there is none."""
    address, key = _address(VERIFY_ADDRESS), _key(VERIFY_KEY, VERIFY_KEY_FILE)
    with open_channel(address) as channel:
        try:
            return VerifyServiceStub(channel).Verify(request, timeout=READ_SECONDS, metadata=key.metadata)
        except grpc.RpcError as error:
            fail(told(error, Called(address, VERIFY_ADDRESS, READ_SECONDS, changes=False, key_source=key.source)))


def _page_size(limit: int | None, have: int) -> int:
    return PAGE_SIZE if limit is None else min(PAGE_SIZE, limit - have)


def _address(variable: str) -> str:
    address = os.environ.get(variable) or DEFAULTS[variable]
    if not _ADDRESS.fullmatch(address):
        fail(f"{variable}: HOST:PORT or unix:PATH is expected")
    return address


def _admin_key() -> CallerKey:
    key = _key(ADMIN_KEY, ADMIN_KEY_FILE)
    if not key.key_string:
        fail(f"no admin key: set {ADMIN_KEY}, or {ADMIN_KEY_FILE} to a file that holds it")
    return key


def _key(variable: str, file_variable: str) -> CallerKey:
    """The key in the environment or in the file that it names; an empty one where there is none.

    No message shows any of it.
    """
    text, source = os.environ.get(variable, ""), variable
    path = "" if text else os.environ.get(file_variable, "")
    if not text and not path:
        return CallerKey("", f"{variable} or {file_variable}")
    if path:
        source = f"{file_variable} {path}"
        try:
            with Path(path).open("rb") as file:
                text = file.read(_KEY_FILE_BYTES).decode("ascii", "replace")
        except OSError as error:
            fail(f"{source} cannot be read: {error.strerror}")
    key_string = text.strip()
    if path and not key_string:
        fail(f"{source} is empty")
    if key_string and (not key_string.isascii() or not key_string.isprintable() or " " in key_string):
        fail(f"{source} holds no key: one line of printable ASCII is expected")
    return CallerKey(key_string, source)
