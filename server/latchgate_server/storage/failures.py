"""What the database driver raises, said in the words of core/errors.py.

The driver's own text is never passed on where it could quote a row: "Failing row contains …" may go on with a hash.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from latchgate_server.core.errors import CannotDecide, Overloaded, StoreUnavailable

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
    asyncpg.ObjectNotInPrerequisiteStateError,  # a standby, asked for what only a primary knows
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TargetServerAttributeNotMatched,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    OSError,
)


_ON_CONNECTING = (
    asyncpg.PostgresConnectionError,
    asyncpg.TooManyConnectionsError,
    asyncpg.CannotConnectNowError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.TargetServerAttributeNotMatched,
    asyncpg.ClientConfigurationError,
    OSError,
)
"""What comes of an attempt to connect, and of nothing that is done with rows."""

_IDENTIFIERS_ONLY = "42"
"""The class of SQLSTATEs about the statement itself. Their messages quote it, and our statements hold no values."""


class StatementRefused(Exception):
    """A statement of ours made no sense to the database, or broke one of its rules: a bug.

    Says what was broken, and nothing of the values that broke it.
    """


@contextmanager
def told_plainly() -> Iterator[None]:
    """Raise Overloaded or StoreUnavailable for what the driver raises within, and StatementRefused for a bug."""
    try:
        yield
    except (*_BUSY, TimeoutError) as error:
        raise Overloaded("the database is busy with another change; try again") from error
    except asyncpg.DiskFullError as error:
        raise StoreUnavailable("the database's disk is full") from error
    except _GONE as error:
        if _is_bad_argument(error):
            raise StatementRefused("an argument does not fit its parameter") from None
        raise StoreUnavailable("the database cannot be reached") from error
    except asyncpg.PostgresError as error:
        raise StatementRefused(_described(error)) from None


def why_unreachable(error: BaseException) -> str:
    """Why nobody could connect, for an operator, and without any secret.

    error: what the driver raised while it connected. Later ones may quote a row.
    """
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, asyncpg.PostgresError):
        return str(error)
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return "it takes no writes, as a standby does"
    if isinstance(error, OSError):
        # Event loops word it differently. What a resolver says has a number below zero.
        number = error.errno or 0
        return os.strerror(number) if number > 0 else error.strerror or str(error) or "the connection failed"
    # Its text may quote the address, and with it the password.
    return "its address makes no sense"


def told_at_start(error: CannotDecide) -> str:
    """What to tell an operator whose process cannot begin: callers are not told as much."""
    cause = error.__cause__
    if isinstance(cause, _ON_CONNECTING):
        return f"the database cannot be reached: {why_unreachable(cause)}; see LATCHGATE_DATABASE_URL"
    return str(error)


def _is_bad_argument(error: Exception) -> bool:
    """Whether the driver could not encode an argument; its text quotes that. The class has no public name."""
    of_caller = isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError)
    return of_caller and not isinstance(error, asyncpg.ClientConfigurationError)


def _described(error: asyncpg.PostgresError) -> str:
    """The error by what it is about; values are no part of it."""
    described = f"{type(error).__name__} ({error.sqlstate})"
    for name in ("schema_name", "table_name", "column_name", "constraint_name", "data_type_name"):
        if value := getattr(error, name):
            described += f" {name.removesuffix('_name')} {value}"
    if (error.sqlstate or "").startswith(_IDENTIFIERS_ONLY):
        described += f": {error.args[0]}"
    return described
