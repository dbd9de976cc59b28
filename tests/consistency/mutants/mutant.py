"""Mutants: the code with one rule of the protocol broken.

A mutant is the source of one function with a line or two changed, so that it follows the code: where the lines are no
longer found, applying it fails and says so.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any, cast

import pytest

from tests.consistency.world import World

Scenario = Callable[[World], Awaitable[None]]


class BrokenPromise(AssertionError):
    """A decision that started after a change returned was made on the state before it."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """rule: what is broken. edits: lines of `owner.function` that stand one after the other, and what replaces them.

    scenario: keeps the promise on the code as it is and breaks it, by raising BrokenPromise, on the mutant.
    """

    rule: str
    owner: type
    function: str
    edits: tuple[tuple[str, str], ...]
    scenario: Scenario

    def apply(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put the mutated function in the place of the real one for the rest of the test."""
        function = cast(FunctionType, inspect.getattr_static(self.owner, self.function))
        lines = textwrap.dedent(inspect.getsource(function)).splitlines()
        for old, new in self.edits:
            lines = _edited(lines, old.splitlines(), new.splitlines())
        namespace: dict[str, Any] = {}
        code = compile("\n".join(lines), f"<{self.owner.__name__}.{self.function}, mutated>", "exec")
        exec(code, function.__globals__, namespace)
        monkeypatch.setattr(self.owner, self.function, namespace[self.function])


def _edited(lines: list[str], old: list[str], new: list[str]) -> list[str]:
    """The lines with those in `old`, found whatever their indentation, replaced by `new`, at the first one's."""
    bare = [line.strip() for line in lines]
    places = [at for at in range(len(lines)) if bare[at : at + len(old)] == [line.strip() for line in old]]
    assert len(places) == 1, f"the code has changed; found {len(places)} times:\n" + "\n".join(old)
    at = places[0]
    indentation = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    return lines[:at] + [indentation + line for line in new] + lines[at + len(old) :]
