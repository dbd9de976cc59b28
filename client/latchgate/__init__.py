"""Latchgate's client: ask whether an API key may do what its bearer wants.

    from latchgate import Client

    with Client("127.0.0.1:50051") as latchgate:
        verification = latchgate.verify(key, requires="orders.read", client_ip="203.0.113.9")
        if not verification.allowed:
            print(verification.reason)

`AsyncClient` is the same for asyncio. `AdminClient` and `AsyncAdminClient` manage tenants, plans, roles and keys; what
they take and return is in `latchgate.admin`. The generated stubs are under `latchgate.v1`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latchgate.admin import AdminClient, AsyncAdminClient
    from latchgate.aio import AsyncClient
    from latchgate.cache import CacheInfo
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
    "CacheInfo",
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

# Imported when somebody asks for it (PEP 562): the stubs under `latchgate.v1` are used without all of this, too.
_MODULES = {
    "AdminClient": "admin",
    "AlreadyExists": "errors",
    "AsyncAdminClient": "admin",
    "AsyncClient": "aio",
    "CacheInfo": "cache",
    "CallFailed": "errors",
    "Client": "client",
    "Conflict": "errors",
    "Denied": "errors",
    "Identity": "results",
    "InvalidRequest": "errors",
    "KeyStringLost": "errors",
    "LatchgateError": "errors",
    "LimitStatus": "results",
    "NotAuthenticated": "errors",
    "NotFound": "errors",
    "Overloaded": "errors",
    "PermissionDenied": "errors",
    "PreconditionFailed": "errors",
    "Query": "results",
    "TLS": "connection",
    "Unavailable": "errors",
    "Verification": "results",
}


def __getattr__(name: str) -> object:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]
