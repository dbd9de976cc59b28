"""Array literals say what they were made of, whatever that is."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latchgate_server.storage.array_literals import integers, joined, moments, texts

# All that PostgreSQL can keep, and often what means something in a literal.
_TEXTS = st.text(st.characters(exclude_characters="\0", codec="utf-8")) | st.text(st.sampled_from('",\\{}\n NUL'))
_EXAMPLES = settings(max_examples=50, deadline=None)


async def read(database: str, type_: str, literal: str) -> Any:
    connection = await asyncpg.connect(database)
    try:
        return await connection.fetchval(f"SELECT $1::text::{type_}[]", literal)
    finally:
        await connection.close()


@_EXAMPLES
@given(st.lists(_TEXTS))
async def test_of_texts(module_database: str, values: list[str]) -> None:
    assert await read(module_database, "text", texts(values)) == values


@_EXAMPLES
@given(st.lists(_TEXTS, max_size=3), st.lists(_TEXTS, max_size=3))
async def test_of_two_lists_joined(module_database: str, one: list[str], other: list[str]) -> None:
    assert await read(module_database, "text", joined(texts(one), texts(other))) == one + other


@_EXAMPLES
@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
async def test_of_whole_numbers(module_database: str, values: list[int]) -> None:
    assert await read(module_database, "bigint", integers(values)) == values


@pytest.mark.parametrize("seconds", [0.0, 1_764_315_555.123456, 253_402_300_799.999])
async def test_a_moment_is_kept_to_the_microsecond(module_database: str, seconds: float) -> None:
    (kept,) = await read(module_database, "float8", moments([seconds]))
    assert kept == pytest.approx(seconds * 1e6, abs=0.5)
