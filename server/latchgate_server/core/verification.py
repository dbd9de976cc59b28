"""What came of one verification."""

from __future__ import annotations

from typing import Final

from latchgate_server.core.charging import NO_CHARGE, Charge
from latchgate_server.core.model import Decision, DenialReason, Identity
from latchgate_server.core.record import Record


class Verification:
    """A decision, and what it was made on.

    denial_reason: None where the key is allowed.
    record: the key's; set once its secret is proven, on denials too.
    user: whom the call acts as: the one asked for where that is allowed, else the identity's.
    revision: that of the state which was decided on; 0 where no state was looked at.
    stale: whether that state was memory's own through an outage of the database, as the operator chose.
    charge: what came of asking the key's limits, where that came to pass.
    """

    __slots__ = ("charge", "denial_reason", "record", "revision", "stale", "user")

    def __init__(  # noqa: PLR0917 - by position, as each decision makes one
        self,
        denial_reason: DenialReason | None,
        record: Record | None = None,
        user: str = "",
        revision: int = 0,
        stale: bool = False,
        charge: Charge = NO_CHARGE,
    ) -> None:
        self.denial_reason: Final = denial_reason
        self.record: Final = record
        self.user: Final = user
        self.revision: Final = revision
        self.stale: Final = stale
        self.charge: Final = charge

    @property
    def decision(self) -> Decision:
        """ALLOW or DENY."""
        return Decision.ALLOW if self.denial_reason is None else Decision.DENY

    @property
    def identity(self) -> Identity | None:
        """Who the key speaks for, once its secret is proven."""
        return self.record.identity if self.record else None
