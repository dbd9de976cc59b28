"""Permissions: what a key is granted, and the language in which a service says what it requires.

A permission is a dotted name such as `orders.read`. A grant is a permission, or a pattern that ends in `*` and covers
everything below: `orders.*` covers `orders.read` and `orders.lines.read` but not `orders`; `*` covers everything
except what begins with `latchgate.`, so that no business key is ever an administrator.

A requirement is an expression over permissions:

    requirement = conjunction { "OR" conjunction }
    conjunction = term { "AND" term }
    term        = "NOT" term | "(" requirement ")" | permission

AND binds tighter than OR. The words AND, OR and NOT are written in capitals and are no permissions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from latchgate_server.core import bounds

ADMIN_PREFIX: Final = "latchgate."
"""What permissions of administrators, and of the data plane's callers, begin with."""

_SEGMENT: Final = r"[A-Za-z0-9_-]+"
_PERMISSION: Final = re.compile(rf"{_SEGMENT}(?:\.{_SEGMENT})*")
_TOKEN: Final = re.compile(rf"\s*(?:([()])|({_PERMISSION.pattern})(?![^\s()]))")
_WORDS: Final = frozenset({"AND", "OR", "NOT"})
_ANSWERS: Final = 64


def is_permission(text: str) -> bool:
    """Whether `text` is the name of a permission, such as `orders.read`."""
    return len(text) <= bounds.PERMISSION_LENGTH and text not in _WORDS and _PERMISSION.fullmatch(text) is not None


def is_grant(text: str) -> bool:
    """Whether `text` is a permission or a pattern, such as `orders.*` or `*`."""
    if text == "*" or is_permission(text):
        return True
    return len(text) <= bounds.PERMISSION_LENGTH and text.endswith(".*") and is_permission(text[:-2])


class Grants:
    """The permissions and patterns that a key holds; answers in time independent of how many there are."""

    __slots__ = ("_everything", "_exact", "_prefixes", "_satisfied", "listed")

    def __init__(self, grants: Iterable[str]) -> None:
        """grants: permissions and patterns, each satisfying `is_grant`."""
        self._exact = frozenset(grants)
        self._everything = "*" in self._exact
        self._prefixes = frozenset(g[:-1] for g in self._exact if g.endswith(".*"))
        self.listed = tuple(sorted(self._exact))
        """Every permission and pattern held, sorted."""
        self._satisfied: dict[Requirement, bool] | None = None

    def covers(self, permission: str) -> bool:
        """Whether the permission, or every permission that the pattern `permission` stands for, is granted."""
        if permission in self._exact:
            return True
        if self._everything and not permission.startswith(ADMIN_PREFIX):
            return True
        dot = permission.find(".")
        while dot >= 0:
            if permission[: dot + 1] in self._prefixes:
                return True
            dot = permission.find(".", dot + 1)
        return False

    def satisfy(self, requirement: Requirement) -> bool:
        """Whether they satisfy a requirement. Services ask for few different ones, so the answer is kept."""
        if self._satisfied is None or len(self._satisfied) >= _ANSWERS:
            self._satisfied = {}
        answer = self._satisfied.get(requirement)
        if answer is None:
            answer = self._satisfied[requirement] = requirement.satisfied_by(self)
        return answer


class MalformedRequirement(ValueError):
    """The expression does not follow the grammar; the message says where, for people."""


@dataclass(frozen=True, slots=True, eq=False)
class Permission:
    """Satisfied by a grant that covers it."""

    name: str

    def satisfied_by(self, grants: Grants) -> bool:
        """Whether these grants satisfy the requirement."""
        return grants.covers(self.name)


@dataclass(frozen=True, slots=True, eq=False)
class Not:
    """Satisfied where its term is not."""

    term: Requirement

    def satisfied_by(self, grants: Grants) -> bool:
        """Whether these grants satisfy the requirement."""
        return not self.term.satisfied_by(grants)


@dataclass(frozen=True, slots=True, eq=False)
class AllOf:
    """Satisfied where every term is."""

    terms: tuple[Requirement, ...]

    def satisfied_by(self, grants: Grants) -> bool:
        """Whether these grants satisfy the requirement."""
        for term in self.terms:  # noqa: SIM110 - a generator for each use costs more than all of its terms
            if not term.satisfied_by(grants):
                return False
        return True


@dataclass(frozen=True, slots=True, eq=False)
class AnyOf:
    """Satisfied where one term is."""

    terms: tuple[Requirement, ...]

    def satisfied_by(self, grants: Grants) -> bool:
        """Whether these grants satisfy the requirement."""
        for term in self.terms:  # noqa: SIM110 - as above
            if term.satisfied_by(grants):
                return True
        return False


Requirement = Permission | Not | AllOf | AnyOf
"""A parsed expression. Two are equal only where they are the same; `parse_requirement` gives the same for one text."""


def render_requirement(requirement: Requirement) -> str:
    """The expression that parses to this, in its plainest form."""
    match requirement:
        case Permission(name):
            return name
        case Not(term):
            return f"NOT {_render_term(term)}"
        case AllOf(terms):
            return " AND ".join(map(_render_term, terms))
        case AnyOf(terms):
            return " OR ".join(map(_render_term, terms))


def _render_term(requirement: Requirement) -> str:
    text = render_requirement(requirement)
    return f"({text})" if isinstance(requirement, AllOf | AnyOf) else text


@lru_cache(maxsize=4_096)
def parse_requirement(text: str) -> Requirement:
    """Parse an expression, once for each that is in use.

    Raises MalformedRequirement for what is too long, nested more than `bounds.REQUIREMENT_DEPTH` deep, or outside the
    grammar at the top of this file.
    """
    if len(text) > bounds.REQUIREMENT_LENGTH:
        raise MalformedRequirement(f"longer than {bounds.REQUIREMENT_LENGTH} characters")
    return _Parser(_tokens(text)).whole()


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    end = len(text.rstrip())
    position = 0
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            raise MalformedRequirement(f"no permission, AND, OR, NOT or parenthesis at character {position + 1}")
        tokens.append(match[1] or match[2])
        position = match.end()
    return tokens


def _quoted(token: str) -> str:
    return repr(token[: bounds.QUOTED_LENGTH])


class _Parser:
    """Recursive descent over tokens; `_depth` bounds the recursion."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._next = 0
        self._depth = 0

    def whole(self) -> Requirement:
        requirement = self._requirement()
        if self._next < len(self._tokens):
            raise MalformedRequirement(f"AND or OR expected before {_quoted(self._tokens[self._next])}")
        return requirement

    def _requirement(self) -> Requirement:
        terms = [self._conjunction()]
        while self._take("OR"):
            terms.append(self._conjunction())
        return terms[0] if len(terms) == 1 else AnyOf(tuple(terms))

    def _conjunction(self) -> Requirement:
        terms = [self._term()]
        while self._take("AND"):
            terms.append(self._term())
        return terms[0] if len(terms) == 1 else AllOf(tuple(terms))

    def _term(self) -> Requirement:
        self._depth += 1
        if self._depth > bounds.REQUIREMENT_DEPTH:
            raise MalformedRequirement(f"nested more than {bounds.REQUIREMENT_DEPTH} deep")
        term = self._bare_term()
        self._depth -= 1
        return term

    def _bare_term(self) -> Requirement:
        if self._take("NOT"):
            return Not(self._term())
        if self._take("("):
            inner = self._requirement()
            if not self._take(")"):
                raise MalformedRequirement("a closing parenthesis is missing")
            return inner
        token = self._tokens[self._next] if self._next < len(self._tokens) else ""
        if not is_permission(token):
            raise MalformedRequirement(
                f"a permission expected {f'instead of {_quoted(token)}' if token else 'at the end'}"
            )
        self._next += 1
        return Permission(token)

    def _take(self, token: str) -> bool:
        if self._next < len(self._tokens) and self._tokens[self._next] == token:
            self._next += 1
            return True
        return False
