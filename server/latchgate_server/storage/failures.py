"""What the database driver raises, said in the words of core/errors.py. The driver's own text stays in the cause."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from latchgate_server.core.errors import Overloaded, StoreUnavailable

_BUSY = (
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TooManyConnectionsError,
)
_GONE = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TargetServerAttributeNotMatched,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    OSError,
)


@contextmanager
def told_plainly() -> Iterator[None]:
    """Raise Overloaded or StoreUnavailable for what the driver raises within; bugs pass as they are."""
    try:
        yield
    except (*_BUSY, TimeoutError) as error:
        raise Overloaded("the database is busy with another change; try again") from error
    except _GONE as error:
        raise StoreUnavailable("the database cannot be reached") from error
