"""Mutations that wait for the revision clock, and how their transactions begin and end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from latchgate_server.core.model import HashProfile, Key, KeyState, Role, SecretHash
from latchgate_server.core.record import Record
from latchgate_server.storage.failures import StatementRefused
from latchgate_server.storage.pool import create_pool
from latchgate_server.storage.store import PostgresStore
from tests.storage.prompt import Prompt, fresh_id, parked


@pytest.fixture
async def store(module_database: str) -> AsyncIterator[PostgresStore]:
    """With a lease so long that no timeout of ours strikes in these tests."""
    pool = await create_pool(module_database, 30.0, 2)
    yield PostgresStore(pool, 30.0)
    await pool.close()


async def test_a_mutation_that_stood_in_line_begins_with_what_was_committed_meanwhile(
    store: PostgresStore, prompt: Prompt, other: Prompt
) -> None:
    """Its actor among it, who may have been revoked, and the end of the audit chain."""
    key = Key(key_id=fresh_id(), tenant_id=await prompt.tenant())
    sealed = SecretHash(profile=HashProfile.GENERATED, pepper_id="pepper", phc="$argon2id$", tag=b"abcd")
    async with store.change() as transaction:
        await transaction.insert_key(key, sealed)
        sequence, _ = await transaction.last_audit_event()

    async def begin() -> tuple[Record, int]:
        async with store.change(key.key_id) as transaction:
            assert isinstance(transaction.actor.record, Record)
            return transaction.actor.record, (await transaction.last_audit_event())[0]

    await other.run("BEGIN")
    await other.run("UPDATE keys SET state = 'REVOKED' WHERE key_id = $1", key.key_id)
    async with parked(prompt, begin()) as waiting:
        await other.insert("audit_events", sequence=sequence + 1, time=datetime(2026, 1, 1, tzinfo=UTC))
        await other.run("COMMIT")
    record, end = await waiting
    assert record.state is KeyState.REVOKED
    assert end == sequence + 1


async def test_a_mutation_that_is_given_up_while_it_stands_in_line_leaves_no_trace(
    store: PostgresStore, prompt: Prompt, other: Prompt
) -> None:
    await other.run("BEGIN")
    revision = await other.value("SELECT latchgate_begin_change()")

    async def begin() -> None:
        async with store.change():
            raise AssertionError

    async with parked(prompt, begin()) as waiting:
        waiting.cancel()
    await other.run("COMMIT")
    async with store.change() as transaction:
        assert transaction.revision == revision + 1


async def test_a_mutation_that_goes_on_after_a_failed_statement_is_not_taken_for_made(
    store: PostgresStore, prompt: Prompt
) -> None:
    before = await prompt.revision()

    async def overlook() -> None:
        async with store.change() as transaction:
            with suppress(StatementRefused):
                await transaction.insert_role(Role(role_id=fresh_id(), tenant_id="nobody"))

    with pytest.raises(StatementRefused, match="rolled back"):
        await overlook()
    assert await prompt.revision() == before
