"""The revision clock: one revision for each mutation, and the order of revisions is the order of commits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from latchgate_server.core.model import Plan
from latchgate_server.storage.pool import create_pool
from latchgate_server.storage.store import PostgresStore
from tests.storage.prompt import Prompt, fresh_id, parked

LEASE = 30.0
"""Seconds. Long, so that no timeout of ours strikes in these tests."""
WRITERS = 8
EACH = 15

OpenPrompt = Callable[[], Awaitable[Prompt]]


@pytest.fixture
async def store(module_database: str) -> AsyncIterator[PostgresStore]:
    """The store as the server has it."""
    pool = await create_pool(module_database, LEASE, WRITERS)
    yield PostgresStore(pool, LEASE)
    await pool.close()


# One revision for each mutation.


async def test_a_mutation_takes_the_next_revision_and_its_rows_carry_it(store: PostgresStore, prompt: Prompt) -> None:
    before = await prompt.revision()
    plan_id = fresh_id()
    async with store.change() as transaction:
        assert transaction.revision == before + 1
        await transaction.insert_plan(Plan(plan_id=plan_id))
        assert await prompt.revision() == before, "nobody sees it before the commit"
    assert await prompt.revision() == await store.current_revision() == before + 1
    assert await prompt.value("SELECT revision FROM plans WHERE plan_id = $1", plan_id) == before + 1
    assert await prompt.changes(before) == [(before + 1, "plan", plan_id)]


async def test_a_mutation_that_fails_takes_none(store: PostgresStore, prompt: Prompt) -> None:
    before = await prompt.revision()

    async def fail() -> None:
        async with store.change() as transaction:
            await transaction.insert_plan(Plan(plan_id=fresh_id()))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await prompt.revision() == before
    assert await prompt.changes(before) == []


async def test_a_transaction_of_many_statements_is_one_mutation(prompt: Prompt) -> None:
    before = await prompt.revision()
    async with prompt.connection.transaction():
        tenant_id = await prompt.tenant()
        key_id = await prompt.key(tenant_id)
        await prompt.run("UPDATE keys SET state = 'DISABLED' WHERE key_id = $1", key_id)
        assert await prompt.value("SELECT latchgate_begin_change()") == before + 1
    assert await prompt.revision() == before + 1
    assert {revision for revision, _, _ in await prompt.changes(before)} == {before + 1}


async def test_the_next_transaction_of_a_session_is_another_mutation(prompt: Prompt) -> None:
    before = await prompt.revision()
    for expected in (1, 2, 3):
        await prompt.plan()
        assert await prompt.revision() == before + expected


# Savepoints.


async def test_what_is_rolled_back_to_a_savepoint_leaves_no_change_but_the_revision(prompt: Prompt) -> None:
    before = await prompt.revision()
    async with prompt.connection.transaction():
        kept = await prompt.plan()
        await prompt.run("SAVEPOINT here")
        await prompt.plan()
        await prompt.run("ROLLBACK TO SAVEPOINT here")
        also_kept = await prompt.plan()
    assert await prompt.revision() == before + 1
    assert await prompt.changes(before) == sorted([(before + 1, "plan", kept), (before + 1, "plan", also_kept)])


async def test_a_clock_taken_after_a_savepoint_is_given_back_with_it_and_taken_again(prompt: Prompt) -> None:
    before = await prompt.revision()
    async with prompt.connection.transaction():
        await prompt.run("SAVEPOINT here")
        await prompt.plan()
        await prompt.run("ROLLBACK TO SAVEPOINT here")
        assert await prompt.revision() == before
        kept = await prompt.plan()
    assert await prompt.revision() == before + 1
    assert await prompt.changes(before) == [(before + 1, "plan", kept)]


async def test_an_error_in_a_subtransaction_does_not_lose_the_clock(prompt: Prompt) -> None:
    before = await prompt.revision()
    async with prompt.connection.transaction():
        plan_id = await prompt.plan()
        with pytest.raises(asyncpg.UniqueViolationError):
            async with prompt.connection.transaction():
                await prompt.insert("plans", plan_id=plan_id, key_limits="[]", tenant_limits="[]")
        await prompt.run("UPDATE plans SET max_keys = 1 WHERE plan_id = $1", plan_id)
    assert await prompt.changes(before) == [(before + 1, "plan", plan_id)] * 2


# The order.


async def test_the_order_of_revisions_is_the_order_of_commits(
    store: PostgresStore, prompt: Prompt, prompts: OpenPrompt
) -> None:
    """A reader that polls never meets a revision above a gap that is filled later."""
    before = await prompt.revision()
    committed: list[int] = []
    seen: list[list[int]] = []
    writing = True

    async def mutate() -> None:
        for _ in range(EACH):
            async with store.change() as transaction:
                await transaction.insert_plan(Plan(plan_id=fresh_id()))
            committed.append(transaction.revision)

    async def type_by_hand() -> None:
        typist = await prompts()
        for _ in range(EACH):
            async with typist.connection.transaction():
                revision = await typist.value("SELECT latchgate_begin_change()")
                await typist.plan()
            committed.append(revision)

    async def read() -> None:
        reader = await prompts()
        while writing:
            rows = await reader.connection.fetch(
                "SELECT (SELECT revision FROM revision_clock) AS now, array_agg(revision ORDER BY revision) AS seen"
                " FROM changes WHERE revision > $1",
                before,
            )
            assert rows[0]["now"] == max(rows[0]["seen"] or [before]), "the clock and its changes are one"
            seen.append(rows[0]["seen"] or [])

    reading = asyncio.ensure_future(read())
    await asyncio.gather(*(mutate() for _ in range(WRITERS - 1)), type_by_hand())
    writing = False
    await reading
    everything = list(range(before + 1, before + 1 + WRITERS * EACH))
    assert sorted(committed) == everything
    assert all(revisions == everything[: len(revisions)] for revisions in seen)
    assert len({len(revisions) for revisions in seen}) > 1, "the reader looked while they wrote"


async def test_a_mutation_waits_for_the_one_before_it_and_sees_what_it_did(
    prompt: Prompt, other: Prompt, prompts: OpenPrompt
) -> None:
    looker = await prompts()
    before = await prompt.revision()
    transaction = prompt.connection.transaction()
    await transaction.start()
    plan_id = await prompt.plan()

    async def second() -> tuple[int, int]:
        async with other.connection.transaction():
            revision = await other.value("SELECT latchgate_begin_change()")
            return revision, await other.value("SELECT count(*) FROM plans WHERE plan_id = $1", plan_id)

    async with parked(looker, second()) as waiting:
        await transaction.commit()
    assert waiting.result() == (before + 2, 1)


# SQL typed by hand that had to wait. A statement acts on the snapshot with which it began.

BULK = "UPDATE keys SET state = 'REVOKED' WHERE tenant_id = $1"


async def test_a_bulk_update_that_had_to_wait_fails_instead_of_missing_a_key_committed_meanwhile(
    prompt: Prompt, other: Prompt, prompts: OpenPrompt
) -> None:
    looker = await prompts()
    tenant_id = await prompt.tenant()
    await prompt.key(tenant_id)
    transaction = prompt.connection.transaction()
    await transaction.start()
    late = await prompt.key(tenant_id)
    async with parked(looker, other.run(BULK, tenant_id)) as waiting:
        await transaction.commit()
    with pytest.raises(asyncpg.SerializationError, match="another change was committed") as caught:
        waiting.result()
    assert "latchgate_begin_change()" in str(caught.value.hint)
    assert await looker.value("SELECT count(*) FROM keys WHERE tenant_id = $1 AND state = 'REVOKED'", tenant_id) == 0
    assert await other.run(BULK, tenant_id) == "UPDATE 2", "it works when it is repeated"
    assert await looker.value("SELECT state FROM keys WHERE key_id = $1", late) == "REVOKED"


async def test_with_the_clock_taken_first_a_bulk_update_may_wait_and_misses_nothing(
    prompt: Prompt, other: Prompt, prompts: OpenPrompt
) -> None:
    looker = await prompts()
    tenant_id = await prompt.tenant()
    transaction = prompt.connection.transaction()
    await transaction.start()
    await prompt.key(tenant_id)

    async def in_good_order() -> str:
        async with other.connection.transaction():
            await other.run("SELECT latchgate_begin_change()")
            return await other.run(BULK, tenant_id)

    async with parked(looker, in_good_order()) as waiting:
        await transaction.commit()
    assert waiting.result() == "UPDATE 1"


async def test_a_bulk_update_that_waited_for_one_that_was_rolled_back_works(
    prompt: Prompt, other: Prompt, prompts: OpenPrompt
) -> None:
    looker = await prompts()
    tenant_id = await prompt.tenant()
    await prompt.key(tenant_id)
    transaction = prompt.connection.transaction()
    await transaction.start()
    await prompt.key(tenant_id)
    async with parked(looker, other.run(BULK, tenant_id)) as waiting:
        await transaction.rollback()
    assert waiting.result() == "UPDATE 1"


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_a_stricter_isolation_fails_as_well_rather_than_miss_a_key(
    prompt: Prompt, other: Prompt, isolation: str
) -> None:
    tenant_id = await prompt.tenant()
    await other.run(f"BEGIN ISOLATION LEVEL {isolation}")
    await other.revision()
    await prompt.key(tenant_id)
    with pytest.raises(asyncpg.SerializationError):
        await other.run(BULK, tenant_id)
