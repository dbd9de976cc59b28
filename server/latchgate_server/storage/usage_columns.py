"""A batch of usage as parameters of the statements that write it.

Each function gives an array literal for each column, in the order of the statement's parameters; none at all where
there are no rows.
"""

from __future__ import annotations

from latchgate_server.core.usage_batch import Counts, LastUses, Sources, Uses
from latchgate_server.storage.array_literals import integers, moments, texts

Columns = tuple[str, ...]


def of_counts(rows: Counts) -> Columns:
    """For add_key_usage and add_tenant_usage."""
    if not rows.ids:
        return ()
    return texts(rows.ids), integers(rows.hours), integers(rows.outcomes), integers(rows.counts)


def of_last_uses(rows: LastUses) -> Columns:
    """For renew_last_uses, but for its last parameter."""
    if not rows.key_ids:
        return ()
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


def of_sources(rows: Sources) -> Columns:
    """For add_key_sources."""
    if not rows.key_ids:
        return ()
    return (
        texts(rows.key_ids),
        texts(rows.client_ips),
        moments(rows.first_times),
        moments(rows.last_times),
        integers(rows.counts),
    )


def of_uses(rows: Uses) -> Columns:
    """For add_key_uses."""
    if not rows.key_ids:
        return ()
    return (
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
