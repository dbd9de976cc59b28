"""Usage on its way into the database: the rows of each table, as columns, which is how statements take them.

Thousands of rows are collected each second between decisions, so none of them is an object of its own. Lists of one
table are of the same length. Times are Unix seconds, hours are counted since 1970, and an outcome is usage.ALLOWED or
the number of a DenialReason.
"""

from __future__ import annotations

from latchgate_server.core.model import RequestInfo

_Counter = tuple[str, int, int]
"""Whose, hour, outcome."""


class Counts:
    """Decisions by whom they were about, hour and outcome."""

    __slots__ = ("counts", "hours", "ids", "outcomes")

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.hours: list[int] = []
        self.outcomes: list[int] = []
        self.counts: list[int] = []

    def add(self, whose: str, hour: int, outcome: int, count: int) -> None:
        """Add a row. whose: id of a key or a tenant."""
        self.ids.append(whose)
        self.hours.append(hour)
        self.outcomes.append(outcome)
        self.counts.append(count)


class PlainKeys:
    """Keys of which one row in each table tells all: so they are in none of the other lists, but for single uses.

    Each was used from one address or from none that is known, within one hour and with one outcome.
    """

    __slots__ = (
        "client_ips",
        "counts",
        "first_times",
        "hours",
        "key_ids",
        "last_times",
        "outcomes",
        "user_agents",
        "users",
    )

    def __init__(self) -> None:
        self.key_ids: list[str] = []
        self.hours: list[int] = []
        self.outcomes: list[int] = []
        self.counts: list[int] = []
        self.first_times: list[float] = []
        self.last_times: list[float] = []
        self.client_ips: list[str] = []
        self.users: list[str] = []
        self.user_agents: list[str] = []

    def add(  # noqa: PLR0913, PLR0917 - by position, as most of what is written comes this way
        self,
        key_id: str,
        hour: int,
        outcome: int,
        count: int,
        first_time: float,
        last_time: float,
        client_ip: str,
        user: str,
        user_agent: str,
    ) -> None:
        """Add a key. client_ip, user, user_agent: of its latest use."""
        self.key_ids.append(key_id)
        self.hours.append(hour)
        self.outcomes.append(outcome)
        self.counts.append(count)
        self.first_times.append(first_time)
        self.last_times.append(last_time)
        self.client_ips.append(client_ip)
        self.users.append(user)
        self.user_agents.append(user_agent)


class LastUses:
    """The latest use of each key that was used, the time of its first one in this batch, and how busy it was.

    busy_hours: the latest hour with a use; busy_uses, busy_before: how many there were in it, 1 or more, and in the one
    before.
    """

    __slots__ = (
        "busy_before",
        "busy_hours",
        "busy_uses",
        "client_ips",
        "first_times",
        "key_ids",
        "last_times",
        "user_agents",
        "users",
    )

    def __init__(self) -> None:
        self.key_ids: list[str] = []
        self.first_times: list[float] = []
        self.last_times: list[float] = []
        self.client_ips: list[str] = []
        self.users: list[str] = []
        self.user_agents: list[str] = []
        self.busy_hours: list[int] = []
        self.busy_uses: list[int] = []
        self.busy_before: list[int] = []

    def add(
        self,
        key_id: str,
        *,
        first_time: float,
        last_time: float,
        client_ip: str,
        user: str,
        user_agent: str,
        busy: tuple[int, int, int],
    ) -> None:
        """Add a row. busy: the latest hour with a use, and how many uses there were in it and in the one before."""
        self.key_ids.append(key_id)
        self.first_times.append(first_time)
        self.last_times.append(last_time)
        self.client_ips.append(client_ip)
        self.users.append(user)
        self.user_agents.append(user_agent)
        hour, uses, before = busy
        self.busy_hours.append(hour)
        self.busy_uses.append(uses)
        self.busy_before.append(before)


class Sources:
    """The uses of keys by address."""

    __slots__ = ("client_ips", "counts", "first_times", "key_ids", "last_times")

    def __init__(self) -> None:
        self.key_ids: list[str] = []
        self.client_ips: list[str] = []
        self.first_times: list[float] = []
        self.last_times: list[float] = []
        self.counts: list[int] = []

    def add(self, key_id: str, client_ip: str, first_time: float, last_time: float, count: int) -> None:
        """Add a row."""
        self.key_ids.append(key_id)
        self.client_ips.append(client_ip)
        self.first_times.append(first_time)
        self.last_times.append(last_time)
        self.counts.append(count)


class Uses:
    """Uses one by one, those of a key oldest first."""

    __slots__ = ("client_ips", "key_ids", "outcomes", "requests", "times", "users")

    def __init__(self) -> None:
        self.key_ids: list[str] = []
        self.times: list[float] = []
        self.outcomes: list[int] = []
        self.client_ips: list[str] = []
        self.users: list[str] = []
        self.requests: list[RequestInfo] = []

    def add(self, key_id: str, *, time: float, outcome: int, client_ip: str, user: str, request: RequestInfo) -> None:
        """Add a row."""
        self.key_ids.append(key_id)
        self.times.append(time)
        self.outcomes.append(outcome)
        self.client_ips.append(client_ip)
        self.users.append(user)
        self.requests.append(request)


class UsageBatch:
    """What is written in one transaction.

    keys: how many keys it tells of.
    plain: most of them. key_counts, last_uses, sources: decisions about the others, and those of them that were uses.
    No key is in `last_uses` twice, no address twice of a key.
    uses, tenant_counts: of all keys.
    """

    __slots__ = ("_tenants", "key_counts", "keys", "last_uses", "plain", "sources", "uses")

    def __init__(self) -> None:
        self.keys = 0
        self.plain = PlainKeys()
        self.key_counts = Counts()
        self.last_uses = LastUses()
        self.sources = Sources()
        self.uses = Uses()
        self._tenants: dict[_Counter, int] = {}

    def count(self, key_id: str, tenant_id: str, hour: int, outcome: int, count: int) -> None:
        """Count decisions about a key of a tenant that is not plain."""
        self.key_counts.add(key_id, hour, outcome, count)
        self.count_for_tenant(tenant_id, hour, outcome, count)

    def count_for_tenant(self, tenant_id: str, hour: int, outcome: int, count: int) -> None:
        """Count decisions about a key for its tenant alone."""
        counter = tenant_id, hour, outcome
        self._tenants[counter] = self._tenants.get(counter, 0) + count

    @property
    def tenant_counts(self) -> Counts:
        """The sums of what was counted."""
        sums = Counts()
        for (tenant_id, hour, outcome), count in self._tenants.items():
            sums.add(tenant_id, hour, outcome, count)
        return sums
