"""Latchgate's client: ask whether an API key may do what its bearer wants.

    from latchgate import Client

    with Client("127.0.0.1:50051") as latchgate:
        verification = latchgate.verify(key, requires="orders.read", client_ip="203.0.113.9")
        if not verification.allowed:
            print(verification.reason)

`AsyncClient` is the same for asyncio. `AdminClient` and `AsyncAdminClient` manage tenants, plans, roles and keys; what
they take and return is in `latchgate.admin`. The generated stubs are under `latchgate.v1`.
"""

from latchgate.admin import AdminClient, AsyncAdminClient
from latchgate.aio import AsyncClient
from latchgate.client import Client
from latchgate.connection import TLS
from latchgate.errors import (
    AlreadyExists,
    CallFailed,
    Conflict,
    Denied,
    InvalidRequest,
    KeyStringLost,
    LatchgateError,
    NotAuthenticated,
    NotFound,
    Overloaded,
    PermissionDenied,
    PreconditionFailed,
    Unavailable,
)
from latchgate.results import Identity, LimitStatus, Query, Verification

__all__ = [
    "TLS",
    "AdminClient",
    "AlreadyExists",
    "AsyncAdminClient",
    "AsyncClient",
    "CallFailed",
    "Client",
    "Conflict",
    "Denied",
    "Identity",
    "InvalidRequest",
    "KeyStringLost",
    "LatchgateError",
    "LimitStatus",
    "NotAuthenticated",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "PreconditionFailed",
    "Query",
    "Unavailable",
    "Verification",
]
