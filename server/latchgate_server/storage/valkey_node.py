"""One server of Valkey or Redis: runs scripts, and tells what its cluster looks like."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import valkey.asyncio
from valkey.asyncio.connection import ConnectionPool
from valkey.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    ValkeyError,
)

from latchgate_server.storage.valkey_address import Endpoint

_ONE_DATABASE = "SELECT is not allowed in cluster mode"
# What is told of an error, the first that fits. Never the server's own words: they may repeat what it was sent.
_REASONS: Sequence[tuple[type[Exception], str]] = (
    (AuthenticationError, "it refuses the user or the password"),
    (BusyLoadingError, "it is still loading its data"),
    (ClusterDownError, "its cluster is down, or does not keep every slot"),
    (NoPermissionError, "its user may not run what is needed"),
    (OutOfMemoryError, "its memory is full"),
    (ReadOnlyError, "it is a replica, which takes no writes"),
    (TimeoutError, "no answer in time"),
    (ResponseError, "it does not do what it was asked"),
    (ValkeyError, "no connection"),
    (OSError, "no connection"),
)


@dataclass(frozen=True, slots=True)
class Script:
    """A script in Lua, and the name by which a server that has seen it knows it."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())


class ValkeyNode:
    """A server. Its methods raise ValkeyError or OSError, and wait for as long as their caller lets them."""

    def __init__(self, endpoint: Endpoint, pool: ConnectionPool) -> None:
        self.endpoint = endpoint
        self._pool = pool
        self._client: Any = valkey.asyncio.Valkey.from_pool(pool)  # its methods have no types
        # In place of a pool that blocks: giving back a connection must not wait, or a caller that is cancelled then
        # leaves it behind.
        self._turns = asyncio.Semaphore(pool.max_connections)

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[float]) -> Any:
        """What the script answers. Where a server does not know it, as after a failover, it is sent along."""
        async with self._turns:
            try:
                return await self._client.execute_command("EVALSHA", script.sha, len(keys), *keys, *arguments)
            except NoScriptError:
                return await self._client.execute_command("EVAL", script.text, len(keys), *keys, *arguments)

    async def run_while_moving(self, script: Script, keys: Sequence[str], arguments: Sequence[float]) -> Any:
        """The same, at the server that a slot is being moved to: the word to do so holds for one command."""
        async with self._turns:
            commands = self._client.pipeline(transaction=False)
            commands.execute_command("ASKING")
            commands.execute_command("EVAL", script.text, len(keys), *keys, *arguments)
            _, answer = await commands.execute()
            return answer

    async def slots(self) -> Any:
        """What CLUSTER SLOTS answers. Raises ResponseError where there is no cluster, or the user may not ask."""
        async with self._turns:
            return await self._client.execute_command("CLUSTER", "SLOTS")

    async def drop_idle(self) -> None:
        """Close the connections that nobody uses: the next call begins with a new one, at the address's new server."""
        await self._pool.disconnect(inuse_connections=False)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()


def reason_of(error: BaseException) -> str:
    """Why a server was of no use, in words that hold no secret and fit after its name."""
    if _ONE_DATABASE in str(error):
        return "a cluster has one database; end the address with /0"
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), type(error).__name__)
