"""What a route or a method requires of a key, as whoever protects it wrote it down."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """What a key has to satisfy; without anything, any key that is valid will do.

    permissions: an expression such as `orders.read AND NOT orders.frozen`. capability: what the tenant's plan must
    include. tenant: whose key it must be. resource: what is asked for, such as `sites/berlin/orders`. cost: what to
    take from each limit; 0 takes nothing.

    In tenant and resource, `{name}` stands for the part of the path of that name: `sites/{site}/orders`.
    """

    permissions: str = ""
    capability: str = ""
    tenant: str = ""
    resource: str = ""
    cost: int = 1
    places: frozenset[str] = field(init=False, repr=False)
    """The names that are to be filled in."""

    def __post_init__(self) -> None:
        places = frozenset((*_PLACE.findall(self.tenant), *_PLACE.findall(self.resource)))
        object.__setattr__(self, "places", places)
        for text in (_PLACE.sub("", self.tenant), _PLACE.sub("", self.resource)):
            if "{" in text or "}" in text:
                raise ValueError(f"{text!r} has a brace that is part of no {{name}}")

    def filled(self, parts: Mapping[str, str]) -> tuple[str, str] | None:
        """Tenant and resource for one request; None where a part is missing or empty: less would be required then."""
        if not self.places:
            return self.tenant, self.resource
        if not all(parts.get(name) for name in self.places):
            return None
        tenant, resource = (_PLACE.sub(lambda match: parts[match[1]], text) for text in (self.tenant, self.resource))
        return tenant, resource


class Access(Enum):
    """Who needs no key."""

    PUBLIC = "public"


PUBLIC = Access.PUBLIC
"""Everybody may, without a key."""

ANY_KEY = Requirement()
"""Any key that is valid may."""

Needs = str | Requirement | Access
"""What a route requires. A text: that expression over permissions."""


def requirement_of(needs: Needs) -> Requirement | None:
    """The requirement; None: everybody may. Raises ValueError for a text that is empty.

    Whoever fills in a permission and gets it wrong must not open a route.
    """
    if isinstance(needs, Access):
        return None
    if isinstance(needs, Requirement):
        return needs
    if not needs.strip():
        raise ValueError("an empty permission requires nothing: say ANY_KEY where any valid key may, or PUBLIC")
    return Requirement(permissions=needs)
