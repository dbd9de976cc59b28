"""A database that the tests of one file share, and sessions on it as somebody at a prompt has them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from tests.storage.prompt import Prompt


@pytest.fixture
async def prompts(module_database: str) -> AsyncIterator[Callable[[], Awaitable[Prompt]]]:
    """Opens sessions."""
    opened: list[asyncpg.Connection] = []

    async def open_one() -> Prompt:
        connection: asyncpg.Connection = await asyncpg.connect(module_database)
        opened.append(connection)
        return Prompt(connection)

    yield open_one
    for connection in opened:
        await connection.close()


@pytest.fixture
async def prompt(prompts: Callable[[], Awaitable[Prompt]]) -> Prompt:
    """A session."""
    return await prompts()


@pytest.fixture
async def other(prompts: Callable[[], Awaitable[Prompt]]) -> Prompt:
    """Another session at the same time."""
    return await prompts()
