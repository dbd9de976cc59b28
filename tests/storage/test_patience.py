"""Nothing waits for long: whoever meets a lock, a full pool or a database that is gone is told so within a lease."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from latchgate_server.core.errors import Overloaded, StoreUnavailable
from latchgate_server.core.model import Plan
from latchgate_server.storage.pool import create_pool, session_settings
from latchgate_server.storage.store import PostgresStore
from tests.storage.prompt import Prompt, fresh_id
from tests.support.fault_proxy import FaultProxy

LEASE = 0.6
"""Seconds."""
CONNECTIONS = 2


@pytest.fixture(scope="module")
def network(module_database: str) -> Iterator[FaultProxy]:
    """What lies between the store and the database."""
    with FaultProxy(module_database) as proxy:
        yield proxy


@pytest.fixture
async def store(network: FaultProxy) -> AsyncIterator[PostgresStore]:
    """The store as a server with a short lease has it."""
    pool = await create_pool(network.url, LEASE, CONNECTIONS)
    yield PostgresStore(pool, LEASE * 0.5)
    network.restore()
    pool.terminate()


@asynccontextmanager
async def within_a_lease() -> AsyncIterator[None]:
    """What happens here takes less than a lease, with a second to spare for a slow machine."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < LEASE + 1.0


async def change(store: PostgresStore) -> None:
    async with store.change() as transaction:
        await transaction.insert_plan(Plan(plan_id=fresh_id()))


def test_every_timeout_of_a_session_is_below_the_lease() -> None:
    for lease in (0.3, 3.0, 30.0):
        settings = session_settings(lease)
        timeouts = {name: int(value) / 1_000 for name, value in settings.items() if name.endswith("timeout")}
        assert {
            "lock_timeout",
            "statement_timeout",
            "idle_in_transaction_session_timeout",
            "tcp_user_timeout",
        } <= timeouts.keys()
        assert all(0 < seconds < lease for seconds in timeouts.values())
        assert settings["synchronous_commit"] == "on"
        assert settings["default_transaction_isolation"] == "read committed"


async def test_sessions_have_these_settings(store: PostgresStore) -> None:
    for name, value in session_settings(LEASE).items():
        if name != "tcp_user_timeout":  # the server tells it of TCP sockets alone, and this one ends in a proxy's
            told = await store._pool.fetchval("SELECT setting FROM pg_settings WHERE lower(name) = $1", name)
            assert told.lower() == value.lower()


async def test_a_lock_that_somebody_holds_ends_in_overloaded(store: PostgresStore, prompt: Prompt) -> None:
    await prompt.run("BEGIN")
    await prompt.run("SELECT latchgate_begin_change()")
    async with within_a_lease():
        with pytest.raises(Overloaded) as caught:
            await change(store)
    assert caught.value.retry_after > 0
    assert "lock" not in str(caught.value), "the driver's own text is for the log"
    await prompt.run("ROLLBACK")
    await change(store)


async def test_a_row_that_somebody_locks_ends_in_overloaded(store: PostgresStore, prompt: Prompt) -> None:
    key_id = await prompt.key(await prompt.tenant())
    await prompt.run("BEGIN")
    await prompt.value("SELECT 1 FROM keys WHERE key_id = $1 FOR UPDATE", key_id)

    async def delete() -> None:
        async with store.change() as transaction:
            await transaction.delete_key(key_id)

    async with within_a_lease():
        with pytest.raises(Overloaded):
            await delete()
    await prompt.run("ROLLBACK")
    await delete()


async def test_a_pool_of_which_every_connection_is_in_use_ends_in_overloaded(store: PostgresStore) -> None:
    pool = store._pool
    held = [await pool.acquire() for _ in range(CONNECTIONS)]
    async with within_a_lease():
        with pytest.raises(Overloaded):
            await change(store)
    for connection in held:
        await pool.release(connection)
    await change(store)


async def test_a_transaction_that_sits_idle_is_ended_by_the_database(store: PostgresStore, prompt: Prompt) -> None:
    """A process that stands still in the middle of a change does not hold the clock for longer than a lease."""

    with pytest.raises((Overloaded, StoreUnavailable)):
        async with store.change(), asyncio.timeout(10), within_a_lease():
            await prompt.plan()
    await change(store)


async def test_a_database_that_is_gone_is_unavailable_and_works_again_once_it_is_back(
    store: PostgresStore, network: FaultProxy
) -> None:
    await change(store)
    network.refuse()
    network.drop()
    for _ in range(CONNECTIONS + 1):
        async with within_a_lease():
            with pytest.raises(StoreUnavailable):
                await store.current_revision()
    with pytest.raises(StoreUnavailable):
        await change(store)
    network.restore()
    await change(store)


async def test_a_network_that_carries_nothing_is_noticed_within_a_lease(
    store: PostgresStore, network: FaultProxy
) -> None:
    await change(store)
    network.stall()
    async with within_a_lease():
        with pytest.raises((Overloaded, StoreUnavailable)):
            await store.read.get_plan("x")
    network.restore()


async def test_a_database_that_takes_no_writes_is_unavailable(module_database: str, prompt: Prompt) -> None:
    name = await prompt.value("SELECT quote_ident(current_database())")
    await prompt.run(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    try:
        with pytest.raises(StoreUnavailable):
            _ = await create_pool(module_database, LEASE, 1)
    finally:
        await prompt.run(f"ALTER DATABASE {name} RESET default_transaction_read_only")


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(StoreUnavailable):
        _ = await create_pool("postgresql://u@127.0.0.1:1/x", LEASE, 1)
