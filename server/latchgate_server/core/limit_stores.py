"""Who charges limits, and where processes keep together what has been taken of them, as protocols.

verify/ implements the first, storage/ the others.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple, Protocol

from latchgate_server.core.charging import Charge, HeldQuota, HeldRate, Limits


class PortionWanted(NamedTuple):
    """A wish for some of a quota.

    least: less than this is of no use, and is not given. due: what the calls that wait need together.
    want: how much more would be welcome, for calls to come.
    """

    quota: HeldQuota
    least: int
    due: int
    want: int


class Portion(NamedTuple):
    """Some of a quota, lent to one process.

    units: how much; 0 where there was less than the least. left: what nobody has taken or been lent.
    seconds_left: of the quota's period, on the database's clock; None where it has no end. It names the period as well.
    period_start, timeline: what the unspent rest is given back with.
    """

    units: int
    left: int
    seconds_left: float | None
    period_start: str
    timeline: str


class Unspent(NamedTuple):
    """What is left of a portion that its borrower does without."""

    bucket: str
    units: int
    period_start: str
    timeline: str


class QuotaLedger(Protocol):
    """Keeps how much of each quota is lent or spent. Its methods raise CannotDecide, having worked or not."""

    async def lend(self, wanted: Sequence[PortionWanted]) -> Sequence[Portion]:
        """A portion for each wish, in their order. Never more than the quota in all, whatever else happens."""
        ...

    async def take_back(self, unspent: Sequence[Unspent]) -> None:
        """Lend these units to others. Those of an ended period, or of lost history, are ignored."""
        ...


class Charged:
    """What came of charging buckets. backlogs: seconds, of each bucket, afterwards."""

    __slots__ = ("admitted", "backlogs")

    def __init__(self, admitted: bool, backlogs: list[float]) -> None:
        self.admitted: Final = admitted
        self.backlogs: Final = backlogs


class RateStore(Protocol):
    """Keeps the backlogs of rate limits for all processes, those of a tenant together on one of its nodes."""

    def node_of(self, tenant_id: str) -> str:
        """The name of the node that keeps a tenant's limits now. Nodes fail each by itself."""
        ...

    def nodes(self) -> Collection[str]:
        """The names of all nodes that keep any."""
        ...

    async def charge(self, rates: Sequence[HeldRate], need: int, take: int) -> Charged:
        """Take `take` units of every bucket if each has `need` left, else of none. One round trip.

        The buckets, one or more, are of one tenant. Raises CannotDecide where the store does not answer, and then may
        have taken or not.
        """
        ...


class ChargesLimits(Protocol):
    """What a decision asks once every other check has passed."""

    async def charge(self, limits: Limits, cost: int) -> Charge:
        """Take the cost of every limit if each has it left, whoever must be asked. Raises CannotDecide.

        cost: 0 sees whether each has 1 left, and takes nothing.
        """
        ...
