"""Whatever changes a decision table, by whatever statement, takes a revision and tells the feed what to evict."""

from __future__ import annotations

import io

import pytest

from tests.storage.prompt import Prompt, fresh_id

DECISION_TABLES = ["plans", "tenants", "keys", "key_secrets", "roles", "key_roles", "imported_forms"]
MANY = 1_000
"""Above so many rows of one statement the feed is told to evict everything."""


class Watch:
    """The changes since it began."""

    def __init__(self, prompt: Prompt, revision: int) -> None:
        self._prompt = prompt
        self._revision = revision

    @classmethod
    async def begin(cls, prompt: Prompt) -> Watch:
        return cls(prompt, await prompt.revision())

    async def told(self) -> set[tuple[str, str]]:
        """What the feed was told, all of it under the one revision that was taken."""
        changes = await self._prompt.changes(self._revision)
        assert {revision for revision, _, _ in changes} == {self._revision + 1}
        assert await self._prompt.revision() == self._revision + 1
        return {(entity, id_) for _, entity, id_ in changes}


# Each table, each statement.


async def test_a_plan_is_told_when_it_is_inserted_updated_and_deleted(prompt: Prompt) -> None:
    watch = await Watch.begin(prompt)
    plan_id = await prompt.plan()
    assert await watch.told() == {("plan", plan_id)}
    watch = await Watch.begin(prompt)
    await prompt.run("UPDATE plans SET capabilities = '{x}' WHERE plan_id = $1", plan_id)
    assert await watch.told() == {("plan", plan_id)}
    watch = await Watch.begin(prompt)
    await prompt.run("DELETE FROM plans WHERE plan_id = $1", plan_id)
    assert await watch.told() == {("plan", plan_id)}


async def test_a_tenant_is_told_when_it_is_inserted_updated_and_deleted(prompt: Prompt) -> None:
    watch = await Watch.begin(prompt)
    tenant_id = await prompt.tenant()
    assert await watch.told() == {("tenant", tenant_id)}
    watch = await Watch.begin(prompt)
    await prompt.run("UPDATE tenants SET enabled = false WHERE tenant_id = $1", tenant_id)
    assert await watch.told() == {("tenant", tenant_id)}
    watch = await Watch.begin(prompt)
    await prompt.run("DELETE FROM tenants WHERE tenant_id = $1", tenant_id)
    assert await watch.told() == {("tenant", tenant_id)}


async def test_a_key_is_told_when_it_or_its_secret_is_inserted_updated_and_deleted(prompt: Prompt) -> None:
    tenant_id = await prompt.tenant()
    watch = await Watch.begin(prompt)
    key_id = await prompt.key(tenant_id)
    assert await watch.told() == {("key", key_id)}
    for statement in (
        "UPDATE keys SET state = 'REVOKED' WHERE key_id = $1",
        "UPDATE key_secrets SET phc = 'x' WHERE key_id = $1",
        "DELETE FROM key_secrets WHERE key_id = $1",
        "DELETE FROM keys WHERE key_id = $1",
    ):
        watch = await Watch.begin(prompt)
        await prompt.run(statement, key_id)
        assert await watch.told() == {("key", key_id)}, statement


async def test_a_role_is_told_by_its_number_and_a_key_when_its_roles_change(prompt: Prompt) -> None:
    key_id = await prompt.key(await prompt.tenant())
    watch = await Watch.begin(prompt)
    number = await prompt.role()
    assert await watch.told() == {("role", str(number))}
    watch = await Watch.begin(prompt)
    await prompt.run("UPDATE roles SET permissions = '{x}' WHERE number = $1", number)
    assert await watch.told() == {("role", str(number))}
    watch = await Watch.begin(prompt)
    await prompt.give(key_id, number)
    assert await watch.told() == {("key", key_id)}
    watch = await Watch.begin(prompt)
    await prompt.run("UPDATE key_roles SET position = 7 WHERE key_id = $1", key_id)
    assert await watch.told() == {("key", key_id)}
    watch = await Watch.begin(prompt)
    await prompt.run("DELETE FROM key_roles WHERE key_id = $1", key_id)
    assert await watch.told() == {("key", key_id)}
    watch = await Watch.begin(prompt)
    await prompt.run("DELETE FROM roles WHERE number = $1", number)
    assert await watch.told() == {("role", str(number))}


async def test_an_imported_form_is_told_by_its_key_and_with_it_and_rises_in_revision(prompt: Prompt) -> None:
    key_id = await prompt.key(await prompt.tenant())
    steps = {
        "INSERT INTO imported_forms (form, key_id) VALUES ($1 || '.x', $1)": {("import", key_id)},
        "UPDATE imported_forms SET form = $1 || '.y' WHERE key_id = $1": {("import", key_id)},
        "DELETE FROM keys WHERE key_id = $1": {("import", key_id), ("key", key_id)},
    }
    for statement, expected in steps.items():
        watch = await Watch.begin(prompt)
        await prompt.run(statement, key_id)
        assert await watch.told() == expected, statement
        revision = await prompt.connection.fetchval("SELECT revision FROM imported_forms WHERE key_id = $1", key_id)
        assert revision in {None, await prompt.revision()}


async def test_an_id_that_is_changed_is_told_as_it_was_and_as_it_is(prompt: Prompt) -> None:
    plan_id, renamed = await prompt.plan(), fresh_id()
    watch = await Watch.begin(prompt)
    await prompt.run("UPDATE plans SET plan_id = $2 WHERE plan_id = $1", plan_id, renamed)
    assert await watch.told() == {("plan", plan_id), ("plan", renamed)}


async def test_several_rows_are_told_each_once(prompt: Prompt) -> None:
    tenant_id = await prompt.tenant()
    keys = [await prompt.key(tenant_id) for _ in range(3)]
    watch = await Watch.begin(prompt)
    await prompt.run("UPDATE keys SET state = 'DISABLED' WHERE tenant_id = $1", tenant_id)
    assert await watch.told() == {("key", key_id) for key_id in keys}


async def test_what_a_cascade_deletes_is_told_as_well(prompt: Prompt) -> None:
    tenant_id, shared = await prompt.tenant(), await prompt.role()
    key_id, own = await prompt.key(tenant_id), await prompt.role(tenant_id)
    await prompt.give(key_id, own)
    watch = await Watch.begin(prompt)
    await prompt.run("DELETE FROM keys WHERE key_id = $1", key_id)
    assert await watch.told() == {("key", key_id)}
    key_id = await prompt.key(tenant_id)
    await prompt.give(key_id, own)
    watch = await Watch.begin(prompt)
    await prompt.run("DELETE FROM tenants WHERE tenant_id = $1", tenant_id)
    assert await watch.told() == {("tenant", tenant_id), ("key", key_id), ("role", str(own))}
    assert await prompt.value("SELECT count(*) FROM roles WHERE number = $1", shared) == 1


async def test_copy_is_no_way_around(prompt: Prompt) -> None:
    watch = await Watch.begin(prompt)
    tenant_id = fresh_id()
    rows = io.BytesIO(f"{tenant_id}\tx\t[]\t{{}}\n".encode())
    await prompt.connection.copy_to_table(
        "tenants", source=rows, columns=["tenant_id", "display_name", "limits", "tags"], format="text"
    )
    assert await watch.told() == {("tenant", tenant_id)}


UPSERT = """
    INSERT INTO plans (plan_id, display_name, capabilities, key_limits, tenant_limits, max_keys)
    VALUES ($1, '', '{}', '[]', '[]', 0) ON CONFLICT (plan_id) DO UPDATE SET max_keys = 7
"""
MERGE = """
    MERGE INTO plans USING (VALUES ($1)) AS wanted (id) ON plan_id = wanted.id
    WHEN MATCHED THEN UPDATE SET max_keys = 7
"""
WITH = "WITH wanted AS (SELECT $1 AS id) UPDATE plans SET max_keys = 7 FROM wanted WHERE plan_id = wanted.id"


@pytest.mark.parametrize("statement", [UPSERT, MERGE, WITH], ids=["upsert", "merge", "common table expression"])
async def test_neither_is_any_other_way_to_write(prompt: Prompt, statement: str) -> None:
    plan_id = await prompt.plan()
    watch = await Watch.begin(prompt)
    await prompt.run(statement, plan_id)
    assert await watch.told() == {("plan", plan_id)}
    assert await prompt.value("SELECT max_keys FROM plans WHERE plan_id = $1", plan_id) == 7


async def test_a_session_that_switches_triggers_off_does_not_switch_these_off(prompt: Prompt) -> None:
    """`session_replication_role = replica` is what restores and some tools set."""
    plan_id = await prompt.plan()
    watch = await Watch.begin(prompt)
    await prompt.run("SET session_replication_role = replica")
    await prompt.run("UPDATE plans SET max_keys = 7 WHERE plan_id = $1", plan_id)
    assert await watch.told() == {("plan", plan_id)}


async def test_a_statement_that_touches_no_row_tells_nothing(prompt: Prompt) -> None:
    before = await prompt.revision()
    await prompt.run("UPDATE keys SET state = 'REVOKED' WHERE key_id = 'nothing'")
    await prompt.run("DELETE FROM tenants WHERE tenant_id = 'nothing'")
    assert await prompt.changes(before) == []


# All at once.


async def test_truncate_tells_the_feed_to_evict_everything(prompt: Prompt) -> None:
    watch = await Watch.begin(prompt)
    async with prompt.connection.transaction():
        await prompt.run("TRUNCATE key_roles")
    assert await watch.told() == {("all", "")}
    watch = await Watch.begin(prompt)
    await prompt.run("TRUNCATE tenants CASCADE")
    assert await watch.told() == {("all", "")}


@pytest.mark.parametrize(("rows", "all_"), [(MANY, False), (MANY + 1, True)])
async def test_more_than_a_thousand_rows_are_told_as_everything(prompt: Prompt, rows: int, all_: bool) -> None:
    prefix = fresh_id()
    await prompt.run(
        "INSERT INTO plans (plan_id, display_name, capabilities, key_limits, tenant_limits, max_keys)"
        " SELECT $1 || '-' || n, '', '{}', '[]', '[]', 0 FROM generate_series(1, $2::int) AS n",
        prefix,
        rows,
    )
    watch = await Watch.begin(prompt)
    await prompt.run("UPDATE plans SET max_keys = 7 WHERE starts_with(plan_id, $1)", f"{prefix}-")
    expected = {("all", "")} if all_ else {("plan", f"{prefix}-{n}") for n in range(1, rows + 1)}
    assert await watch.told() == expected
    watch = await Watch.begin(prompt)
    await prompt.run("DELETE FROM plans WHERE starts_with(plan_id, $1)", f"{prefix}-")
    assert await watch.told() == expected


# Notifications.


async def test_a_change_wakes_those_who_listen_once_it_is_committed(prompt: Prompt, other: Prompt) -> None:
    heard: list[object] = []
    await other.connection.add_listener("latchgate_changes", lambda *details: heard.append(details[3]))
    async with prompt.connection.transaction():
        await prompt.plan()
        await other.run("SELECT 1")
        assert heard == []
    await other.run("SELECT 1")
    assert heard == [""], "once for the transaction, and with nothing in it"
    await prompt.run("UPDATE plans SET max_keys = 1 WHERE false")
    await other.run("SELECT 1")
    assert heard == [""]


# What every row keeps.


@pytest.mark.parametrize("table", ["plans", "tenants", "keys", "roles"])
async def test_revision_and_update_time_are_renewed_whatever_is_said(prompt: Prompt, table: str) -> None:
    tenant_id = await prompt.tenant()
    await prompt.plan(), await prompt.role(), await prompt.key(tenant_id)
    before = await prompt.revision()
    stamped = f"UPDATE {table} SET revision = 1, update_time = '2001-01-01'"
    await prompt.run(stamped)
    rows = await prompt.connection.fetch(f"SELECT revision, update_time > '2020-01-01' AS recent FROM {table}")
    assert {(row["revision"], row["recent"]) for row in rows} == {(before + 1, True)}


@pytest.mark.parametrize("table", DECISION_TABLES)
async def test_every_decision_table_is_watched_always(prompt: Prompt, table: str) -> None:
    """`tgenabled` A is ENABLE ALWAYS; bit 2 of `tgtype` is BEFORE, and bits 4, 8, 16, 32 the four events."""
    triggers = await prompt.connection.fetch(
        "SELECT tgname, tgenabled, tgtype::int AS type FROM pg_trigger"
        " WHERE tgrelid = $1::text::regclass AND NOT tgisinternal",
        table,
    )
    assert {trigger["tgenabled"] for trigger in triggers} == {b"A"}
    events_before = {t["type"] & 60 for t in triggers if t["tgname"] == "latchgate_2_take_clock"}
    recorded = {t["type"] & 60 for t in triggers if t["tgname"].startswith("latchgate_3_record_")}
    assert events_before == {60}
    assert recorded == {4, 8, 16, 32}


async def test_nothing_else_refers_to_a_decision_table(prompt: Prompt) -> None:
    """A table that a cascade reaches, or that a record is joined from, would have to be watched as well."""
    tables = await prompt.connection.fetch(
        "SELECT DISTINCT conrelid::regclass::text AS name FROM pg_constraint"
        " WHERE contype = 'f' AND confrelid = ANY ($1::text[]::regclass[])",
        DECISION_TABLES,
    )
    assert {table["name"] for table in tables} <= set(DECISION_TABLES)
