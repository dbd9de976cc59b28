"""What lists find keys by is a copy of what stands elsewhere, and follows whatever statement changes that."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import pytest

from tests.storage.prompt import Prompt, fresh_id

TAGS = """
    SELECT tag.key, tag.value, k.number, k.tenant_id FROM keys AS k CROSS JOIN jsonb_each_text(k.tags) AS tag
"""
TEXTS = """
    SELECT number, tenant_id, key_id, lower(display_name || chr(10) || description) FROM keys
"""
ROLES = """
    SELECT kr.key_id, kr.position, r.role_id, k.number, k.tenant_id
    FROM key_roles AS kr JOIN keys AS k ON k.key_id = kr.key_id JOIN roles AS r ON r.number = kr.role_number
"""
COLUMNS = (
    "tenant_id, display_name, description, owner, default_user, permissions, claims, environment, tags,"
    " ip_allowlist_enabled, ip_allowlist, resources, limits, state, created_by"
)
COPIES = {
    "SELECT name, value, number, tenant_id FROM key_tags": TAGS,
    "SELECT number, tenant_id, key_id, text FROM key_texts": TEXTS,
    "SELECT key_id, position, role_id, key_number, tenant_id FROM key_roles": ROLES,
}


async def wrong(prompt: Prompt) -> Sequence[asyncpg.Record]:
    """What the copies have too much, and what they lack."""
    found: list[asyncpg.Record] = []
    for copy, original in COPIES.items():
        query = f"({copy} EXCEPT {original}) UNION ALL ({original} EXCEPT {copy})"
        found += await prompt.connection.fetch(query)
    return found


async def count(prompt: Prompt, table: str) -> int:
    return int(await prompt.value(f"SELECT count(*) FROM {table}"))


@pytest.fixture
async def tenant_id(prompt: Prompt) -> str:
    """A tenant with four keys that have tags, texts and roles, some of them none."""
    tenant_id = await prompt.tenant()
    role = await prompt.role(tenant_id)
    for tags, name, description in (
        ('{"team": "data", "tier": "1"}', "Nightly EXPORT", "of orders\nand invoices"),
        ('{"team": "data"}', "", "Ärger mit der Straße"),
        ("{}", "Order bot", ""),
        ("{}", "", ""),
    ):
        key_id = await prompt.key(tenant_id, tags=tags, display_name=name, description=description)
        await prompt.give(key_id, role)
    return tenant_id


async def test_new_keys_are_copied_with_the_first_statement(prompt: Prompt, tenant_id: str) -> None:
    assert tenant_id
    assert await wrong(prompt) == []
    assert await count(prompt, "key_tags") >= 3


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE keys SET tags = '{}'",
        'UPDATE keys SET tags = \'{"team": "other", "new": ""}\'',
        "UPDATE keys SET tags = tags || '{\"more\": \"yes\"}', display_name = 'NEW'",
        "UPDATE keys SET display_name = '', description = ''",
        "UPDATE keys SET description = description || ' more'",
        "UPDATE keys SET state = 'DISABLED'",
        "DELETE FROM keys WHERE number % 2 = 0",
        "DELETE FROM keys",
        "DELETE FROM tenants",
        "TRUNCATE keys CASCADE",
        "UPDATE roles SET role_id = role_id || '-renamed'",
        f"INSERT INTO keys (key_id, lineage_id, {COLUMNS}) SELECT key_id || '-2', lineage_id, {COLUMNS} FROM keys",
    ],
)
async def test_the_copies_follow_a_change_of_many_rows(prompt: Prompt, tenant_id: str, change: str) -> None:
    assert tenant_id
    await prompt.run(change)
    assert await wrong(prompt) == []


async def test_a_key_moved_to_another_tenant_by_hand_takes_its_copies_along(prompt: Prompt, tenant_id: str) -> None:
    other = await prompt.tenant()
    await prompt.run("DELETE FROM key_roles")
    await prompt.run("UPDATE keys SET tenant_id = $1 WHERE tenant_id = $2", other, tenant_id)
    assert await wrong(prompt) == []


async def test_a_change_that_touches_no_copy_does_not_write_one(prompt: Prompt, tenant_id: str) -> None:
    before = await prompt.connection.fetch("SELECT xmin::text FROM key_texts ORDER BY number")
    await prompt.run("UPDATE keys SET state = 'DISABLED' WHERE tenant_id = $1", tenant_id)
    assert await prompt.connection.fetch("SELECT xmin::text FROM key_texts ORDER BY number") == before


async def test_the_copies_are_no_decision_tables(prompt: Prompt) -> None:
    revision = await prompt.revision()
    await prompt.run("INSERT INTO key_tags (name, value, number, tenant_id) VALUES ($1, '', 0, '')", fresh_id())
    await prompt.run("DELETE FROM key_tags WHERE number = 0")
    assert await prompt.revision() == revision
