"""The client of AdminService for programs that block."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

import grpc

from latchgate.admin import imports, key_states, keys, plans, records, roles, rotation, support, tenants
from latchgate.admin.binding import CHANGE_TIMEOUT, READ_TIMEOUT, admin_call_failed, named_after
from latchgate.admin.calls import Call, Listing, Page
from latchgate.connection import TLS, metadata_of, open_channel, owner_metadata
from latchgate.errors import CallFailed, Unavailable
from latchgate.reaching import HEALTH, explained
from latchgate.retries import Retries
from latchgate.v1 import admin_service_pb2_grpc

P = ParamSpec("P")
T = TypeVar("T")


class Listed(Generic[T]):
    """A list: iterate over it to read all of it, page by page as they are needed, or ask for single pages."""

    def __init__(self, admin: AdminClient, listing: Listing[T]) -> None:
        self._admin = admin
        self._listing = listing

    def __iter__(self) -> Iterator[T]:
        page = self.page()
        yield from page.entries
        while page.next_page_token:
            page = self.page(page.next_page_token)
            yield from page.entries

    def page(self, token: str = "") -> Page[T]:
        """One page of up to `page_size` entries. token: the next_page_token of the page before; empty: the first."""
        return self._admin.make(self._listing.page(token))


def _method(build: Callable[P, Call[T]]) -> Callable[Concatenate[AdminClient, P], T]:
    def method(self: AdminClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.make(build(*args, **kwargs))

    return named_after(build, method)


def _listed(build: Callable[P, Listing[T]]) -> Callable[Concatenate[AdminClient, P], Listed[T]]:
    def method(self: AdminClient, /, *args: P.args, **kwargs: P.kwargs) -> Listed[T]:
        return Listed(self, build(*args, **kwargs))

    return named_after(build, method)


class AdminClient:
    """Asks AdminService. Safe to share between threads; close it, or use it in a `with`.

    address: `HOST:PORT` or `unix:PATH`. key: an administrator's key string. on_behalf_of: an owner, whose keys alone
    the calls then see and change. timeout: seconds for a call that changes nothing, its retries included, and for a
    connection. change_timeout: seconds for one that does, which may have to wait for replicas that are gone. tls: None:
    plaintext.

    Every call raises CallFailed where it fails, whose `reason` is the name in ErrorReason, and TypeError or ValueError
    for arguments that no request can be made of. What was not done for want of a connection is tried again, and where
    doing it twice comes to the same as once, also what the server could not do, and what was lost on its way.
    """

    def __init__(
        self,
        address: str,
        key: str,
        *,
        on_behalf_of: str | None = None,
        timeout: float = READ_TIMEOUT,
        change_timeout: float = CHANGE_TIMEOUT,
        tls: TLS | None = None,
    ) -> None:
        self._address = address
        self._metadata = metadata_of(key)
        self._owner = () if on_behalf_of is None else owner_metadata(on_behalf_of)
        self._timeout = timeout
        self._change_timeout = change_timeout
        self._retries = Retries()
        self._tls = tls
        self._channel = open_channel(address, tls)
        self._stub: Any = admin_service_pb2_grpc.AdminServiceStub(self._channel)
        self._health: Any = self._channel.unary_unary(HEALTH)
        self._is_view = False

    def __repr__(self) -> str:
        return f"AdminClient({self._address!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; it stays open where it is another client's."""
        if not self._is_view:
            self._channel.close()

    def on_behalf_of(self, owner: str) -> Self:
        """A client over the same connection that sees and changes this owner's keys alone, as a portal's user may.

        It lasts as long as this one. Raises ValueError for an empty owner.
        """
        view = copy.copy(self)
        view._owner, view._is_view = owner_metadata(owner), True  # noqa: SLF001 - it is another of this class
        return view

    create_tenant = _method(tenants.create_tenant)
    get_tenant = _method(tenants.get_tenant)
    list_tenants = _listed(tenants.list_tenants)
    update_tenant = _method(tenants.update_tenant)
    enable_tenant = _method(tenants.enable_tenant)
    disable_tenant = _method(tenants.disable_tenant)
    delete_tenant = _method(tenants.delete_tenant)

    create_plan = _method(plans.create_plan)
    get_plan = _method(plans.get_plan)
    list_plans = _listed(plans.list_plans)
    update_plan = _method(plans.update_plan)
    delete_plan = _method(plans.delete_plan)

    create_role = _method(roles.create_role)
    get_role = _method(roles.get_role)
    list_roles = _listed(roles.list_roles)
    update_role = _method(roles.update_role)
    delete_role = _method(roles.delete_role)

    create_key = _method(keys.create_key)
    get_key = _method(keys.get_key)
    list_keys = _listed(keys.list_keys)
    update_key = _method(keys.update_key)
    delete_key = _method(keys.delete_key)

    enable_key = _method(key_states.enable_key)
    disable_key = _method(key_states.disable_key)
    expire_key = _method(key_states.expire_key)
    revoke_key = _method(key_states.revoke_key)
    batch_revoke_keys = _method(key_states.batch_revoke_keys)
    report_leaked_keys = _method(key_states.report_leaked_keys)

    rotate_key = _method(rotation.rotate_key)
    get_rotation = _method(rotation.get_rotation)
    import_keys = _method(imports.import_keys)

    explain_key = _method(support.explain_key)
    reset_limit = _method(support.reset_limit)

    get_usage = _method(records.get_usage)
    list_key_uses = _method(records.list_key_uses)
    list_key_sources = _listed(records.list_key_sources)
    list_busiest_keys = _method(records.list_busiest_keys)
    list_audit_events = _listed(records.list_audit_events)

    def make(self, call: Call[T]) -> T:
        """Make a call that a function of `latchgate.admin` has built."""
        if call.changes:
            self._reach()
        seconds = self._change_timeout if call.changes else self._timeout
        rpc = getattr(self._stub, call.rpc)
        return call.result(self._ask(rpc, call.request, seconds, repeatable=call.repeatable))

    def _reach(self) -> None:
        """See that somebody is there: without, a change would wait for them as long as it may take."""
        try:
            self._ask(self._health, b"", self._timeout, repeatable=True)
        except Unavailable:
            raise
        except CallFailed:  # whoever refuses this is there
            return

    def _ask(self, rpc: Any, request: Any, seconds: float, *, repeatable: bool) -> Any:
        deadline = time.monotonic() + seconds
        attempt = 0
        while True:
            attempt += 1
            try:
                # Where there is no connection, a call waits for one: it cannot have been done.
                remaining, metadata = deadline - time.monotonic(), self._metadata + self._owner
                response = rpc(request, timeout=remaining, metadata=metadata, wait_for_ready=True)
            except grpc.RpcError as error:
                failed = admin_call_failed(error, self._address, seconds)
            else:
                self._retries.note_success()
                return response
            pause = self._retries.pause(failed, attempt, cost=0) if repeatable else None
            if pause is None or time.monotonic() + pause >= deadline:
                raise explained(failed, self._channel, self._address, self._tls) from None
            time.sleep(pause)
