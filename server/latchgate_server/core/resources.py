"""Resources: what a key may be used for, as paths such as `sites/berlin/orders`.

A restriction is a path, which stands for itself, or a path and `/*`, which stands for everything below it.

A requested path that is not in its plain form is in no restriction, so that `sites/berlin/../paris` opens nothing. In
that form a path has no empty, `.` or `..` segment, none of the symbols that services decode or cut off at (_STRANGE),
no white space and no control characters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from latchgate_server.core import bounds

_STRANGE: Final = frozenset("\\%?#;* ")


def is_resource(text: str) -> bool:
    """Whether `text` is a resource's path in its plain form."""
    return (
        0 < len(text) <= bounds.RESOURCE_LENGTH
        and text.isprintable()
        and _STRANGE.isdisjoint(text)
        and all(segment not in ("", ".", "..") for segment in text.split("/"))
    )


def is_restriction(text: str) -> bool:
    """Whether `text` is a resource's path, or one with `/*` at its end."""
    return len(text) <= bounds.RESOURCE_LENGTH and is_resource(text.removesuffix("/*"))


class ResourceScope:
    """The resources that a key is restricted to; answers in time independent of how many there are."""

    __slots__ = ("_exact", "_prefixes")

    def __init__(self, restrictions: Iterable[str]) -> None:
        """restrictions: each satisfying `is_restriction`."""
        self._exact = frozenset(restrictions)
        self._prefixes = frozenset(r[:-1] for r in self._exact if r.endswith("/*"))

    def contains(self, resource: str) -> bool:
        """Whether the resource is one of these or below one of these."""
        return is_resource(resource) and self.covers(resource)

    def covers(self, restriction: str) -> bool:
        """Whether everything that the restriction, which satisfies `is_restriction`, stands for is within these."""
        if restriction in self._exact:
            return True
        slash = restriction.find("/")
        while slash >= 0:
            if restriction[: slash + 1] in self._prefixes:
                return True
            slash = restriction.find("/", slash + 1)
        return False
