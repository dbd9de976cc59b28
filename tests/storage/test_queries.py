"""queries.sql: every statement fits the schema and is used."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from latchgate_server.storage import queries
from latchgate_server.storage.queries import PARTS, SQL
from tests.storage.prompt import Prompt

STORAGE = Path(queries.__file__).parent
TEXT = (STORAGE / "queries.sql").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SQL)
async def test_a_statement_fits_the_schema(prompt: Prompt, name: str) -> None:
    await prompt.connection.prepare(SQL[name])


def test_every_statement_is_used() -> None:
    strings = {
        node.value
        for path in STORAGE.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert (SQL.keys() | PARTS.keys()) - strings == set()


def test_no_two_statements_have_the_same_name() -> None:
    names = re.findall(r"^-- (?:name|part): (\w+)$", TEXT, re.MULTILINE)
    assert sorted(names) == sorted([*SQL, *PARTS])


def test_columns_are_listed() -> None:
    assert not re.search(r"SELECT \*|\.\*|RETURNING \*", TEXT), "a column that is added must not change what is read"
