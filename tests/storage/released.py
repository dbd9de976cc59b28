"""The statements of a version that was released, which must run on every later schema.

    python -m tests.storage.released

writes released.sql anew: every statement of this version, as PostgreSQL gets it, and the newest migration that it
knows. It is run at each release, in the commit that is released.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from latchgate_server.core.model import KeyState
from latchgate_server.core.ports import AuditFilter, KeyFilter, ListPosition
from latchgate_server.storage import lists
from latchgate_server.storage.migrate import migrations
from latchgate_server.storage.queries import SQL

FILE = Path(__file__).with_name("released.sql")
_HEADING = re.compile(r"^-- name: (.+)\n", re.MULTILINE)
_LEVEL = re.compile(r"^-- The newest migration that it knows: (\d+)\n", re.MULTILINE)
_HEADER = """\
-- The statements of a version that was released: for tests, never edited. `python -m tests.storage.released` writes it.
-- The newest migration that it knows: {level}
"""

# Any time: it becomes an argument, and is not in the statement.
_TIME = datetime(2026, 1, 1, tzinfo=UTC)
_KEY_FILTERS = (
    {"owner": "a"},
    {"environment": "a"},
    {"role_id": "a"},
    {"tags": {"a": "b"}},
    {"states": (KeyState.ACTIVE, KeyState.DISABLED)},
    {"expires_before": _TIME},
    {"rotation_due_before": _TIME},
    {"unused_since": _TIME},
    {"search": "a"},
)


@dataclass(frozen=True, slots=True)
class Released:
    """level: the newest migration that it knows. statements: by their names."""

    level: int
    statements: Mapping[str, str]


def read() -> Released:
    """What released.sql says."""
    text = FILE.read_text(encoding="utf-8")
    level = _LEVEL.search(text)
    assert level is not None
    parts = _HEADING.split(text)[1:]
    return Released(int(level[1]), {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)})


def _lists() -> Iterator[tuple[str, str]]:
    """Those of lists.py: each filter alone, and within a tenant behind the page before."""
    for given in ({}, *_KEY_FILTERS):
        what = " ".join(given) or "all"
        everywhere, in_tenant = KeyFilter(**given), KeyFilter(**given, tenant_id="a")
        yield f"list_keys by {what}", lists.list_keys(everywhere, None, 1).text
        behind = ListPosition(1, None if lists.time_of(in_tenant) == lists.time_of(KeyFilter()) else _TIME)
        yield f"list_keys by {what} of a tenant", lists.list_keys(in_tenant, behind, 1).text
        yield f"count_keys by {what}", lists.count_keys(everywhere).text
    everything = AuditFilter(tenant_id="a", target_id="a", actor="a", start_time=_TIME, end_time=_TIME)
    yield "list_audit_events", lists.list_audit_events(AuditFilter(), None, 1).text
    yield "list_audit_events by everything", lists.list_audit_events(everything, ListPosition(1, _TIME), 1).text


def main() -> None:
    """Write the file."""
    statements = [*SQL.items(), *_lists()]
    sections = [f"-- name: {name}\n{text}\n" for name, text in statements]
    FILE.write_text("\n".join([_HEADER.format(level=len(migrations())), *sections]), encoding="utf-8")


if __name__ == "__main__":
    main()
