"""The statements of ListKeys and ListAuditEvents, put together from the parts in queries.sql.

Each has only the conditions that its filter needs, and reads its page along an index that has the rows in the order of
the list, so that a page costs the same however many rows match and wherever they are. `make bench-lists` shows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from latchgate_server.core.model import KeyState
from latchgate_server.core.ports import AuditFilter, KeyFilter, ListPosition
from latchgate_server.storage.queries import PARTS

_EVERY = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement and its arguments."""

    text: str
    arguments: Sequence[object]


@dataclass(slots=True)
class _Arguments:
    """The arguments of a statement in the making."""

    values: list[object] = field(default_factory=list)
    _places: dict[tuple[type, object], str] = field(default_factory=dict)

    def place(self, value: object) -> str:
        """Where the value stands: `$1`, `$2` …; the same for the same value."""
        key = (type(value), value)
        if key not in self._places:
            self.values.append(value)
            self._places[key] = f"${len(self.values)}"
        return self._places[key]


@dataclass(frozen=True, slots=True)
class _Table:
    """A table that keys are looked for in. number: its column that holds the key's number."""

    name: str
    alias: str
    number: str = "number"

    @property
    def key_number(self) -> str:
        """The key's number in it."""
        return f"{self.alias}.{self.number}"


_KEYS = _Table("keys", "k")
_TEXTS = _Table("key_texts", "kt")
_LAST_USES = _Table("key_last_uses", "u", "key_number")
_BY_NUMBER = "NULL::timestamptz"


def list_keys(matching: KeyFilter, before: ListPosition | None, limit: int) -> Statement:
    """A page of the keys that match, `limit` at most, behind a position unless None."""
    arguments = _Arguments()
    page = _page(arguments, matching, before, limit)
    return Statement(PARTS["list_keys"].format(page=page), arguments.values)


def count_keys(matching: KeyFilter) -> Statement:
    """How many keys match."""
    arguments = _Arguments()
    page = _page(arguments, matching, None, _EVERY)
    return Statement(PARTS["count_keys"].format(page=page), arguments.values)


def list_audit_events(matching: AuditFilter, before: ListPosition | None, limit: int) -> Statement:
    """A page of the events that match, the newest first, behind a position unless None."""
    arguments = _Arguments()
    conditions = [
        PARTS["audit_event_matches"].format(column=column, value=arguments.place(value))
        for column, value in (
            ("tenant_id", matching.tenant_id),
            ("target_id", matching.target_id),
            ("actor", matching.actor),
        )
        if value is not None
    ]
    if matching.start_time is not None:
        conditions.append(PARTS["audit_event_not_before"].format(time=arguments.place(matching.start_time)))
    if matching.end_time is not None:
        conditions.append(PARTS["time_before"].format(column="time", time=arguments.place(matching.end_time)))
    if before is not None:
        conditions.append(_behind(arguments, before, "time", "sequence"))
    text = PARTS["list_audit_events"].format(
        conditions=" AND ".join(conditions) or "true", limit=arguments.place(limit)
    )
    return Statement(text, arguments.values)


def time_of(matching: KeyFilter) -> str:
    """The time that the keys which match are in the order of, before their numbers: the one that is asked for.

    So the page is a piece of its index. A search goes by the numbers alone.
    """
    if matching.search is None and matching.expires_before is not None:
        return "k.expire_time"
    if matching.search is None and matching.rotation_due_before is not None:
        return "k.rotate_by_time"
    if matching.search is None and matching.unused_since is not None:
        return "u.hour"
    return _BY_NUMBER


def _page(arguments: _Arguments, matching: KeyFilter, before: ListPosition | None, limit: int) -> str:
    """The numbers of a page. A list for each state, as an index is in the order of numbers within one state only."""
    states = set(matching.states or KeyState)
    lists: list[str] = []
    for state in sorted(states) if len(states) < len(KeyState) else [None]:
        tables = _tables(matching, state)
        conditions = _conditions(arguments, matching, before, tables)
        if state is not None:
            conditions.append(PARTS["in_state"].format(state=arguments.place(state.name)))
        given = {
            "tables": f"{tables[0].name} AS {tables[0].alias} {_joins(tables)}",
            "joins": _joins(tables),
            "conditions": " AND ".join(conditions) or "true",
            "limit": arguments.place(limit),
        }
        if matching.search is None:
            lists.append(_list(matching, tables[0], given))
        else:
            lists += _lists_by_text(arguments, matching, before, given)
    together = " UNION ALL ".join(f"({one})" for one in lists)
    if len(lists) == 1 and matching.search is None:
        return together
    return PARTS["page_of_numbers"].format(lists=together, limit=arguments.place(limit))


def _list(matching: KeyFilter, first: _Table, given: Mapping[str, str]) -> str:
    time = time_of(matching)
    order = f"{first.key_number} DESC" if time == _BY_NUMBER else f"{time} DESC, {first.key_number} DESC"
    return PARTS["list_of_numbers"].format_map({**given, "number": first.key_number, "time": time, "order": order})


def _lists_by_text(
    arguments: _Arguments, matching: KeyFilter, before: ListPosition | None, given: Mapping[str, str]
) -> list[str]:
    """The keys that a search finds: chunk by chunk or, in a tenant of few keys, one by one."""
    number = "NULL" if before is None else arguments.place(before.number)
    given = {**given, "search": arguments.place(matching.search), "before": number}
    if matching.tenant_id is None:
        return [PARTS["list_of_numbers_by_text"].format_map({**given, "unless": "true"})]
    few = PARTS["tenant_has_few_keys"].format(tenant_id=arguments.place(matching.tenant_id))
    by_tenant = {**given, "conditions": f"{few} AND {given['conditions']}"}
    return [
        PARTS["list_of_numbers_by_text"].format_map({**given, "unless": f"NOT {few}"}),
        PARTS["list_of_numbers_by_text_of_tenant"].format_map(by_tenant),
    ]


def _tables(matching: KeyFilter, state: KeyState | None) -> list[_Table]:
    """The tables that have what is asked for; `keys` only where no other has it all."""
    tables = [_TEXTS] if matching.search is not None else []
    if matching.role_id is not None:
        tables.append(_Table("key_roles", "with_role", "key_number"))
    tables += [_Table("key_tags", f"with_tag_{place}") for place in range(len(matching.tags or {}))]
    if matching.unused_since is not None:
        # First of all where the list is in the order of its hours.
        by_hour = time_of(matching) == "u.hour"
        return [_LAST_USES, *tables, _KEYS] if by_hour else [*tables, _KEYS, _LAST_USES]
    of_keys = (matching.owner, matching.environment, state, matching.expires_before, matching.rotation_due_before)
    return tables if tables and of_keys == (None,) * len(of_keys) else [*tables, _KEYS]


def _joins(tables: Sequence[_Table]) -> str:
    """The tables but the first, joined to it."""
    first, *others = tables
    joins = [f"JOIN {table.name} AS {table.alias} ON {table.key_number} = {first.key_number}" for table in others]
    return " ".join(joins)


def _conditions(
    arguments: _Arguments, matching: KeyFilter, before: ListPosition | None, tables: Sequence[_Table]
) -> list[str]:
    """What a key has to meet, but for its state and text; in each table what can be compared in its index."""
    conditions = _of_roles_and_tags(arguments, matching)
    if matching.tenant_id is not None:
        tenant_id = arguments.place(matching.tenant_id)
        conditions += [PARTS["of_tenant"].format(of=table.alias, tenant_id=tenant_id) for table in tables]
    if matching.owner is not None:
        conditions.append(PARTS["of_owner"].format(owner=arguments.place(matching.owner)))
    if matching.environment is not None:
        conditions.append(PARTS["of_environment"].format(environment=arguments.place(matching.environment)))
    times = (("k.expire_time", matching.expires_before), ("k.rotate_by_time", matching.rotation_due_before))
    for column, time in times:
        if time is not None:
            conditions.append(PARTS["time_before"].format(column=column, time=arguments.place(time)))
    if matching.unused_since is not None:
        conditions.append(PARTS["unused_since"].format(time=arguments.place(matching.unused_since)))
    if before is not None and time_of(matching) != _BY_NUMBER:
        conditions.append(_behind(arguments, before, time_of(matching), tables[0].key_number))
    elif before is not None:
        number = arguments.place(before.number)
        conditions += [PARTS["number_before"].format(column=table.key_number, number=number) for table in tables]
    return conditions


def _of_roles_and_tags(arguments: _Arguments, matching: KeyFilter) -> list[str]:
    conditions = []
    if matching.role_id is not None:
        role_id = arguments.place(matching.role_id)
        if matching.tenant_id is None:
            conditions.append(PARTS["with_role"].format(alias="with_role", role_id=role_id))
        else:
            tenant_id = arguments.place(matching.tenant_id)
            part = PARTS["with_role_of_tenant"]
            conditions.append(part.format(alias="with_role", role_id=role_id, tenant_id=tenant_id))
    for place, (name, value) in enumerate(sorted((matching.tags or {}).items())):
        given = {"name": arguments.place(name), "value": arguments.place(value)}
        conditions.append(PARTS["with_tag"].format(alias=f"with_tag_{place}", **given))
    return conditions


def _behind(arguments: _Arguments, before: ListPosition, column: str, number_column: str) -> str:
    time, number = arguments.place(before.time), arguments.place(before.number)
    given = {"column": column, "number_column": number_column, "time": time, "number": number}
    return PARTS["time_and_number_before"].format_map(given)
