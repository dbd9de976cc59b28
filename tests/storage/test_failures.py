"""What the driver raises: each kind becomes the right error of ours, and no error tells what a row held."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import asyncpg
import pytest

from latchgate_server.core.errors import LatchgateError, Overloaded, StoreUnavailable
from latchgate_server.core.model import HashProfile, Key, Role, SecretHash, Tenant
from latchgate_server.storage.failures import StatementRefused, told_plainly
from latchgate_server.storage.pool import create_pool
from latchgate_server.storage.store import PostgresStore
from tests.storage.prompt import fresh_id

PHC = "$argon2id$v=19$m=1024,t=1,p=1$c2FsdHNhbHQ$aHR0cHM6Ly9leGFtcGxlLm9yZw"


@pytest.fixture
async def store(module_database: str) -> AsyncIterator[PostgresStore]:
    pool = await create_pool(module_database, 3.0, 2)
    yield PostgresStore(pool, 1.5)
    pool.terminate()


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (asyncpg.ObjectNotInPrerequisiteStateError, StoreUnavailable),
        (asyncpg.ReadOnlySQLTransactionError, StoreUnavailable),
        (asyncpg.AdminShutdownError, StoreUnavailable),
        (asyncpg.InterfaceError, StoreUnavailable),
        (asyncpg.ClientConfigurationError, StoreUnavailable),
        (ConnectionRefusedError, StoreUnavailable),
        (asyncpg.LockNotAvailableError, Overloaded),
        (asyncpg.QueryCanceledError, Overloaded),
        (TimeoutError, Overloaded),
    ],
)
def test_what_passes_by_itself_may_be_tried_again(raised: type[Exception], told: type[LatchgateError]) -> None:
    with pytest.raises(told), told_plainly():
        raise raised("the driver's own text")


async def test_a_mistake_of_ours_is_not_taken_for_a_busy_database(store: PostgresStore) -> None:
    async def refer_to_nothing() -> None:
        async with store.change() as transaction:
            await transaction.insert_role(Role(role_id=fresh_id(), tenant_id="nobody"))

    with pytest.raises(StatementRefused, match=r"ForeignKeyViolationError \(23503\).* roles_tenant_id_fkey"):
        await refer_to_nothing()


async def test_a_statement_that_makes_no_sense_is_told_as_it_stands(store: PostgresStore) -> None:
    with (
        pytest.raises(StatementRefused, match=r'UndefinedTableError.* relation "nothing" does not exist'),
        told_plainly(),
    ):
        await store._pool.fetch("SELECT 1 FROM nothing")


@pytest.mark.parametrize(
    ("profile", "phc"),
    [
        pytest.param("nonsense", PHC, id="a row that breaks a rule, which PostgreSQL quotes"),
        pytest.param("generated", PHC.encode(), id="an argument of another type, which the driver quotes"),
    ],
)
async def test_the_log_of_a_refused_row_holds_nothing_of_it(profile: str, phc: Any, store: PostgresStore) -> None:
    """An internal error is logged with its traceback, as that of a bug should be."""
    tenant_id = f"t{fresh_id()}"
    named = cast(HashProfile, SimpleNamespace(value=profile))
    sealed = SecretHash(profile=named, pepper_id="pepper", phc=phc, tag=None)

    async def insert() -> None:
        async with store.change() as transaction:
            await transaction.insert_tenant(Tenant(tenant_id=tenant_id))
            await transaction.insert_key(Key(key_id=fresh_id(), tenant_id=tenant_id), sealed)

    with pytest.raises(StatementRefused) as caught:
        await insert()
    logged = "".join(traceback.format_exception(caught.value))
    assert "insert_secret" in logged, "where it happened is told"
    assert PHC not in logged
    assert "Failing row" not in logged
