"""Dictionaries and lists that nobody can change: what many callers are given at once must stay what it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn


def frozen(value: Any) -> Any:
    """A copy of a JSON value that nobody can change, all the way down. It equals the original, and is JSON as well."""
    if isinstance(value, Mapping):
        return FrozenDict({name: frozen(inner) for name, inner in value.items()})
    if isinstance(value, Sequence) and not isinstance(value, str):
        return FrozenList(map(frozen, value))
    return value


def _refuse(*_: object, **__: object) -> NoReturn:
    raise TypeError("this is shared with other callers and cannot be changed; make a copy of it")


class FrozenDict(dict[str, Any]):
    """A dictionary that cannot be changed; `dict(…)` of it can."""

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (dict(self),)


class FrozenList(list[Any]):
    """A list that cannot be changed; `list(…)` of it can."""

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[Any]]]:
        return list, (list(self),)
