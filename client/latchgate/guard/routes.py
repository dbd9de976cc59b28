"""Which route of an HTTP service a request is for, and what that requires.

The path of a route is matched against the decoded path, as frameworks do it: `/orders` is itself alone, `{name}` one
part that is not empty, and `/*` at the end everything below. The first route that matches decides.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from latchgate.guard.requirements import ANY_KEY, Needs, Requirement, requirement_of

_NAME = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
# Some routers let a line break at the end of a path pass for nothing, and so would find a route that is not found here.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Route:
    """A path and what it requires.

    path: see above. needs: an expression over permissions, a Requirement, ANY_KEY or PUBLIC. methods: of HTTP; None:
    all. GET stands for HEAD as well, and for the handshake of a WebSocket. Raises ValueError for what is none of these.
    """

    path: str
    needs: Needs
    methods: Collection[str] | None = None
    requirement: Requirement | None = field(init=False, repr=False)
    pattern: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        requirement, pattern = requirement_of(self.needs), _pattern(self.path)
        missing = frozenset() if requirement is None else requirement.places - pattern.groupindex.keys()
        if missing:
            raise ValueError(f"{self.path} has no part {', '.join(sorted(missing))}")
        object.__setattr__(self, "methods", None if self.methods is None else _upper(self.methods))
        object.__setattr__(self, "requirement", requirement)
        object.__setattr__(self, "pattern", pattern)


class Matched(NamedTuple):
    """What a request requires. requirement: None: nothing. parts: of the path, by their names."""

    requirement: Requirement | None
    parts: Mapping[str, str]


class Routes:
    """All routes of a service, in their order."""

    def __init__(self, routes: Sequence[Route] | None) -> None:
        """routes: None: every path requires a valid key. Otherwise a path that none of them matches is not there."""
        self._routes = (Route("/*", ANY_KEY),) if routes is None else tuple(routes)

    def match(self, method: str, path: str) -> Matched | None:
        """What a request requires; None where no route is for it."""
        if _CONTROL.search(path):
            return None
        for route in self._routes:
            if route.methods is None or method in route.methods:
                found = route.pattern.fullmatch(path or "/")
                if found is not None:
                    return Matched(route.requirement, found.groupdict())
        return None


def _upper(methods: Collection[str]) -> frozenset[str]:
    if isinstance(methods, str):
        raise ValueError(f"{methods!r} is expected to be a set of methods")
    named = frozenset(method.upper() for method in methods)
    return named | {"HEAD"} if "GET" in named else named


def _pattern(path: str) -> re.Pattern[str]:
    if not path.startswith("/"):
        raise ValueError(f"{path!r} is expected to begin with /")
    parts = path.split("/")[1:]
    ending = "/.*" if parts[-1] == "*" else ""
    named = parts[:-1] if ending else parts
    if any(_NAME.fullmatch(part) and named.count(part) > 1 for part in named):
        raise ValueError(f"{path!r} is expected to have no two parts of the same name")
    return re.compile("".join(f"/{_part(path, part)}" for part in named) + ending, re.DOTALL)


def _part(path: str, part: str) -> str:
    name = _NAME.fullmatch(part)
    if name is not None:
        return f"(?P<{name[1]}>[^/]+)"
    if any(symbol in part for symbol in "*{}"):
        raise ValueError(f"{path!r}: a part is a text, {{name}}, or * at the end")
    return re.escape(part)
