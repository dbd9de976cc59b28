"""What may become of a change, and of the replicas around it: what Hypothesis draws from."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st

from tests.consistency.stage import LEASE
from tests.consistency.world import READ, WRITE

LEASES_AND_RATES = ((LEASE, 0.85), (LEASE * 2 / 3, 1.05))
"""Of each replica: seconds, and how fast its clock runs. The margins allow for as much."""

KEYS = 4
REPLICAS = st.sampled_from(range(len(LEASES_AND_RATES)))
ANY_KEY = st.integers(0, KEYS - 1)
ANY_TENANT = st.integers(0, 1)
ANY_PERMISSION = st.sampled_from([READ, WRITE])
VERBS = st.sampled_from(["disable", "enable", "revoke", "expire", "delete", "give role"])


class Race(NamedTuple):
    """What becomes of one replica around a change, and for how long it then stands still while the other lives on.

    notified: whether both replicas hear of the change, so that they glance at it before they beat.
    """

    number: int
    before: str
    after: str
    seconds: float
    trouble: str
    notified: bool


RACES = st.builds(
    Race,
    REPLICAS,
    st.sampled_from(["", "idle", "after upsert", "after read"]),
    st.sampled_from(["", "before read", "after read", "before acknowledge", "after acknowledge", "idle"]),
    st.sampled_from([0.0, 1.0, 1.0, 34.0]),
    st.sampled_from(["", "", "", "load", "load", "prune", "slow mutator"]),
    st.booleans(),
)
