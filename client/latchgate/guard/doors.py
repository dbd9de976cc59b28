"""Asking about a request, blocking and not."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from latchgate.aio import AsyncClient
from latchgate.client import Client
from latchgate.errors import CallFailed
from latchgate.guard.checks import Asked, Failures, query_for, refusal_of
from latchgate.guard.opening import LateAsyncClient, LateClient
from latchgate.guard.refusals import Refusal
from latchgate.guard.requirements import Requirement
from latchgate.results import Verification

GivenClient = str | Client | Callable[[], Client]
"""A client, which stays its maker's to close, or what makes one in the process that serves, or the address for it."""

GivenAsyncClient = str | AsyncClient | Callable[[], AsyncClient]
"""The same for asyncio, in the event loop that serves."""


class Door:
    """Lets a request pass or not."""

    def __init__(self, client: GivenClient) -> None:
        self._client = LateClient(client)
        self._failures = Failures()

    def decide(self, asked: Asked, requirement: Requirement, parts: Mapping[str, str]) -> Verification | Refusal:
        """The decision where it allows, else what the client is told. parts: of the path, by their names."""
        query = query_for(asked, requirement, parts)
        if isinstance(query, Refusal):
            return query
        try:
            verification = self._client.get().verify_query(query)
        except CallFailed as error:
            return self._failures.refusal_for(error, requirement)
        return refusal_of(verification) or verification

    def close(self) -> None:
        """Close the client, unless it is somebody else's."""
        self._client.close()


class AsyncDoor:
    """The same for asyncio."""

    def __init__(self, client: GivenAsyncClient) -> None:
        self._client = LateAsyncClient(client)
        self._failures = Failures()

    async def decide(self, asked: Asked, requirement: Requirement, parts: Mapping[str, str]) -> Verification | Refusal:
        """As Door does."""
        query = query_for(asked, requirement, parts)
        if isinstance(query, Refusal):
            return query
        try:
            verification = await self._client.get().verify_query(query)
        except CallFailed as error:
            return self._failures.refusal_for(error, requirement)
        return refusal_of(verification) or verification

    async def close(self) -> None:
        """As Door does."""
        await self._client.close()
