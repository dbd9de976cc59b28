"""Clients that are made when they are first needed: in the process that serves, and in its event loop.

A program that forks its workers after loading the application, or has no event loop yet while it loads, could not use
one that was made earlier.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from latchgate.aio import AsyncClient
from latchgate.client import Client


class LateClient:
    """A Client for each process."""

    def __init__(self, client: str | Client | Callable[[], Client]) -> None:
        """client: one that is there and somebody else's to close, or what makes one, or the address for it."""
        self._make = _maker(client)
        self._is_ours = not isinstance(client, Client)
        self._client: Client | None = None
        self._lock = threading.Lock()

    def get(self) -> Client:
        """The client."""
        with self._lock:
            if self._client is None:
                self._client = self._make()
            return self._client

    def close(self) -> None:
        """Close what was made here."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None and self._is_ours:
            client.close()


def _maker(client: str | Client | Callable[[], Client]) -> Callable[[], Client]:
    if isinstance(client, str):
        return lambda: Client(client)
    return (lambda: client) if isinstance(client, Client) else client


class LateAsyncClient:
    """An AsyncClient for each event loop that asks, one after the other."""

    def __init__(self, client: str | AsyncClient | Callable[[], AsyncClient]) -> None:
        """client: one that is there and somebody else's to close, or what makes one, or the address for it."""
        self._make = _async_maker(client)
        self._is_ours = not isinstance(client, AsyncClient)
        self._client: AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def get(self) -> AsyncClient:
        """The client."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._client, self._loop = self._make(), loop
        return self._client

    async def close(self) -> None:
        """Close what was made here, in this event loop."""
        client, self._client = self._client, None
        if client is not None and self._is_ours and self._loop is asyncio.get_running_loop():
            await client.close()


def _async_maker(client: str | AsyncClient | Callable[[], AsyncClient]) -> Callable[[], AsyncClient]:
    if isinstance(client, str):
        return lambda: AsyncClient(client)
    return (lambda: client) if isinstance(client, AsyncClient) else client
