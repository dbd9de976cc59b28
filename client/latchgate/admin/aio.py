"""The client of AdminService for asyncio."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

import grpc

from latchgate.admin import imports, key_states, keys, plans, records, roles, rotation, support, tenants
from latchgate.admin.binding import CHANGE_TIMEOUT, READ_TIMEOUT, admin_call_failed, named_after
from latchgate.admin.calls import Call, Listing, Page
from latchgate.connection import TLS, metadata_of, open_aio_channel, owner_metadata
from latchgate.errors import CallFailed, Unavailable
from latchgate.reaching import HEALTH, explained_aio
from latchgate.retries import Retries
from latchgate.v1 import admin_service_pb2_grpc

P = ParamSpec("P")
T = TypeVar("T")


class AsyncListed(Generic[T]):
    """A list: iterate over it to read all of it, page by page as they are needed, or ask for single pages."""

    def __init__(self, admin: AsyncAdminClient, listing: Listing[T]) -> None:
        self._admin = admin
        self._listing = listing

    async def __aiter__(self) -> AsyncIterator[T]:
        page = await self.page()
        while True:
            for entry in page.entries:
                yield entry
            if not page.next_page_token:
                return
            page = await self.page(page.next_page_token)

    async def page(self, token: str = "") -> Page[T]:
        """One page of up to `page_size` entries. token: the next_page_token of the page before; empty: the first."""
        return await self._admin.make(self._listing.page(token))


# With Any in place of object and None, mypy loses the type of what asyncio.gather makes of two such calls.
def _method(build: Callable[P, Call[T]]) -> Callable[Concatenate[AsyncAdminClient, P], Coroutine[object, None, T]]:
    async def method(self: AsyncAdminClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.make(build(*args, **kwargs))

    return named_after(build, method)


def _listed(build: Callable[P, Listing[T]]) -> Callable[Concatenate[AsyncAdminClient, P], AsyncListed[T]]:
    def method(self: AsyncAdminClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncListed[T]:
        return AsyncListed(self, build(*args, **kwargs))

    return named_after(build, method)


class AsyncAdminClient:
    """Asks AdminService. Belongs to one event loop; close it, or use it in an `async with`.

    Its parameters and calls are those of AdminClient, and fail as they do.
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
        self._channel = open_aio_channel(address, tls)
        self._stub: Any = admin_service_pb2_grpc.AdminServiceStub(self._channel)
        self._health: Any = self._channel.unary_unary(HEALTH)
        self._is_view = False

    def __repr__(self) -> str:
        return f"AsyncAdminClient({self._address!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; it stays open where it is another client's."""
        if not self._is_view:
            await self._channel.close()

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

    async def make(self, call: Call[T]) -> T:
        """Make a call that a function of `latchgate.admin` has built."""
        if call.changes:
            await self._reach()
        seconds = self._change_timeout if call.changes else self._timeout
        rpc = getattr(self._stub, call.rpc)
        return call.result(await self._ask(rpc, call.request, seconds, repeatable=call.repeatable))

    async def _reach(self) -> None:
        """See that somebody is there: without, a change would wait for them as long as it may take."""
        try:
            await self._ask(self._health, b"", self._timeout, repeatable=True)
        except Unavailable:
            raise
        except CallFailed:  # whoever refuses this is there
            return

    async def _ask(self, rpc: Any, request: Any, seconds: float, *, repeatable: bool) -> Any:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        attempt = 0
        while True:
            attempt += 1
            try:
                # Where there is no connection, a call waits for one: it cannot have been done.
                remaining, metadata = deadline - loop.time(), self._metadata + self._owner
                response = await rpc(request, timeout=remaining, metadata=metadata, wait_for_ready=True)
            except grpc.aio.AioRpcError as error:
                failed = admin_call_failed(error, self._address, seconds)
            else:
                self._retries.note_success()
                return response
            pause = self._retries.pause(failed, attempt, cost=0) if repeatable else None
            if pause is None or loop.time() + pause >= deadline:
                raise await explained_aio(failed, self._channel, self._address, self._tls) from None
            await asyncio.sleep(pause)
