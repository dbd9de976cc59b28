"""Loads queries.sql: the statements by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources

_HEADING = re.compile(r"^-- (name|columns): (\w+)\n", re.MULTILINE)


def _load() -> Mapping[str, str]:
    text = resources.files(__package__).joinpath("queries.sql").read_text(encoding="utf-8")
    columns: dict[str, str] = {}
    statements: dict[str, str] = {}
    for kind, name, body in _sections(text):
        if kind == "columns":
            columns[name] = body
        else:
            statements[name] = body.format_map(columns)
    return statements


def _sections(text: str) -> list[tuple[str, str, str]]:
    parts = _HEADING.split(text)[1:]
    return [(kind, name, body.strip()) for kind, name, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True)]


SQL: Mapping[str, str] = _load()
"""Every statement by its name. A name that does not exist raises KeyError at import of whoever asks."""
