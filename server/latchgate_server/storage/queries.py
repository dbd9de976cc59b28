"""Loads queries.sql: the statements by name, and the parts that lists.py makes further ones of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources

_HEADING = re.compile(r"^-- (name|columns|part): (\w+)\n", re.MULTILINE)
_REMARKS = re.compile(r"^(--.*\n)+")


def _load() -> tuple[Mapping[str, str], Mapping[str, str]]:
    text = resources.files(__package__).joinpath("queries.sql").read_text(encoding="utf-8")
    columns: dict[str, str] = {}
    statements: dict[str, str] = {}
    parts: dict[str, str] = {}
    for kind, name, body in _sections(text):
        if kind == "columns":
            columns[name] = body.format_map(columns)
        elif kind == "name":
            statements[name] = body.format_map(columns)
        else:
            parts[name] = _REMARKS.sub("", body).format_map(columns)
    return statements, parts


def _sections(text: str) -> list[tuple[str, str, str]]:
    parts = _HEADING.split(text)[1:]
    return [(kind, name, body.strip()) for kind, name, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True)]


SQL, PARTS = _load()
"""Every statement, and every part of one, by its name. A name that does not exist raises KeyError."""
