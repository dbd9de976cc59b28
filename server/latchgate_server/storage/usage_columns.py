"""A batch of usage as parameters of the statements that write it.

There is an array literal for each column, in the order of the statement's parameters; none at all where there are no
rows.
"""

from __future__ import annotations

from latchgate_server.core.usage_batch import Counts, LastUses, Sources, UsageBatch
from latchgate_server.storage.array_literals import NONE, integers, joined, moments, texts

Columns = tuple[str, ...]


class UsageColumns:
    """The columns of a batch, table by table. Those of plain keys are made once for all tables that they go into."""

    def __init__(self, batch: UsageBatch) -> None:
        plain = batch.plain
        self._batch = batch
        self._key_ids = texts(plain.key_ids)
        self._hours = integers(plain.hours)
        self._counts = integers(plain.counts)
        self._first_times = moments(plain.first_times)
        self._last_times = moments(plain.last_times)
        self._client_ips = texts(plain.client_ips)

    def key_counts(self) -> Columns:
        """For add_key_usage."""
        plain = self._key_ids, self._hours, integers(self._batch.plain.outcomes), self._counts
        return _together(plain, _of_counts(self._batch.key_counts))

    def last_uses(self) -> Columns:
        """For renew_last_uses, but for its last parameter."""
        rows = self._batch.plain
        plain = (
            self._key_ids,
            self._first_times,
            self._last_times,
            self._client_ips,
            texts(rows.users),
            texts(rows.user_agents),
            # All of a plain key's uses were in one hour.
            self._hours,
            self._counts,
            integers([0] * len(rows.key_ids)),
        )
        return _together(plain, _of_last_uses(self._batch.last_uses))

    def sources(self) -> Columns:
        """For add_key_sources."""
        plain = self._key_ids, self._client_ips, self._first_times, self._last_times, self._counts
        return _together(plain, _of_sources(self._batch.sources))

    def uses(self) -> Columns:
        """For add_key_uses."""
        rows = self._batch.uses
        return _none_or(
            texts(rows.key_ids),
            moments(rows.times),
            integers(rows.outcomes),
            texts(rows.client_ips),
            texts(rows.users),
            texts([request.method for request in rows.requests]),
            texts([request.host for request in rows.requests]),
            texts([request.path for request in rows.requests]),
            texts([request.user_agent for request in rows.requests]),
        )

    def tenant_counts(self) -> Columns:
        """For add_tenant_usage."""
        return _none_or(*_of_counts(self._batch.tenant_counts))


def _of_counts(rows: Counts) -> Columns:
    return texts(rows.ids), integers(rows.hours), integers(rows.outcomes), integers(rows.counts)


def _of_last_uses(rows: LastUses) -> Columns:
    return (
        texts(rows.key_ids),
        moments(rows.first_times),
        moments(rows.last_times),
        texts(rows.client_ips),
        texts(rows.users),
        texts(rows.user_agents),
        integers(rows.busy_hours),
        integers(rows.busy_uses),
        integers(rows.busy_before),
    )


def _of_sources(rows: Sources) -> Columns:
    return (
        texts(rows.key_ids),
        texts(rows.client_ips),
        moments(rows.first_times),
        moments(rows.last_times),
        integers(rows.counts),
    )


def _together(plain: Columns, rest: Columns) -> Columns:
    return _none_or(*map(joined, plain, rest))


def _none_or(*columns: str) -> Columns:
    return () if columns[0] == NONE else columns
