"""Connections to Postgres: how each session is set up, so that none can stall another for longer than a lease."""

from __future__ import annotations

import json

import asyncpg
from asyncpg.connect_utils import SessionAttribute
from asyncpg.pool import PoolConnectionProxy

from latchgate_server.storage.failures import told_plainly

MINIMUM_VERSION = 15

Pool = asyncpg.Pool
"""Connections that are lent."""

Connection = asyncpg.Connection | PoolConnectionProxy
"""A connection of its own, or one lent by a pool."""


def session_settings(lease: float) -> dict[str, str]:
    """The settings of every session of ours, all timeouts well below the lease (seconds)."""

    def milliseconds(part: float) -> str:
        return str(int(lease * part * 1_000))

    return {
        "application_name": "latchgate",
        "timezone": "UTC",
        "default_transaction_isolation": "read committed",
        "synchronous_commit": "on",
        "jit": "off",  # our statements are short, but look long to a planner without statistics
        "lock_timeout": milliseconds(0.5),
        "statement_timeout": milliseconds(0.8),
        "idle_in_transaction_session_timeout": milliseconds(0.8),
        "tcp_user_timeout": milliseconds(0.8),
    }


async def connect(url: str, lease: float) -> asyncpg.Connection:
    """One connection to the primary, set up like those of the pool, for statements that need no plan of their own.

    To plan the read of changes anew would cost the database more than to run it.
    """
    connection: asyncpg.Connection = await asyncpg.connect(
        url,
        timeout=lease * 0.5,
        command_timeout=lease * 0.5,
        server_settings=session_settings(lease) | {"plan_cache_mode": "force_generic_plan"},
        target_session_attrs=SessionAttribute.read_write,
    )
    return connection


async def create_pool(url: str, lease: float, size: int) -> asyncpg.Pool:
    """A pool of up to `size` connections to the primary. Raises StoreUnavailable."""
    with told_plainly():
        pool: asyncpg.Pool = await asyncpg.create_pool(
            url,
            min_size=1,
            max_size=size,
            timeout=lease,
            command_timeout=lease * 0.9,
            server_settings=session_settings(lease),
            target_session_attrs=SessionAttribute.read_write,
            init=set_up,
            reset=_leave_as_it_is,
        )
    return pool


async def _leave_as_it_is(_connection: asyncpg.Connection) -> None:
    """In place of the driver's reset, which costs a round trip: whatever we set, we set for a transaction alone."""


async def set_up(connection: asyncpg.Connection) -> None:
    """Let jsonb columns arrive as Python's own values."""
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
