"""The rows that tallies make in each table of usage, as columns for the statements that write them.

Each function gives an array literal for each column, in the order of the statement's parameters; none at all where
there are no rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from latchgate_server.core.model import DenialReason
from latchgate_server.core.usage import KeyTally, Use
from latchgate_server.storage.array_literals import integers, moments, texts

Columns = tuple[str, ...]


def key_counts(tallies: Sequence[KeyTally]) -> Columns:
    """For add_key_usage."""
    counts = [(tally.key_id, hour, outcome, n) for tally in tallies for (hour, outcome), n in tally.counts.items()]
    return _counts(counts)


def tenant_counts(tallies: Sequence[KeyTally]) -> Columns:
    """For add_tenant_usage."""
    sums: dict[tuple[str, int, int], int] = {}
    for tally in tallies:
        for (hour, outcome), count in tally.counts.items():
            of = tally.tenant_id, hour, outcome
            sums[of] = sums.get(of, 0) + count
    return _counts([(tenant_id, hour, outcome, n) for (tenant_id, hour, outcome), n in sums.items()])


def _counts(counts: list[tuple[str, int, int, int]]) -> Columns:
    if not counts:
        return ()
    return (
        texts([whose for whose, _, _, _ in counts]),
        integers([hour for _, hour, _, _ in counts]),
        integers([outcome for _, _, outcome, _ in counts]),
        integers([count for _, _, _, count in counts]),
    )


def last_uses(tallies: Sequence[KeyTally]) -> Columns:
    """For renew_last_uses, but for its last parameter."""
    used = [(tally, tally.last, _busy_hours(tally)) for tally in tallies if tally.last is not None]
    if not used:
        return ()
    return (
        texts([tally.key_id for tally, _, _ in used]),
        moments([tally.first_time for tally, _, _ in used]),
        moments([last.time for _, last, _ in used]),
        texts([last.client_ip for _, last, _ in used]),
        texts([last.user for _, last, _ in used]),
        texts([last.request.user_agent for _, last, _ in used]),
        integers([hour for _, _, (hour, _, _) in used]),
        integers([uses for _, _, (_, uses, _) in used]),
        integers([before for _, _, (_, _, before) in used]),
    )


def _busy_hours(tally: KeyTally) -> tuple[int, int, int]:
    """The latest hour with a use, since 1970, and how many uses there were in it and in the one before."""
    uses: dict[int, int] = {}
    for (hour, outcome), count in tally.counts.items():
        if outcome != DenialReason.INVALID_SECRET:
            uses[hour] = uses.get(hour, 0) + count
    latest = max(uses)
    return latest, uses[latest], uses.get(latest - 1, 0)


def sources(tallies: Sequence[KeyTally]) -> Columns:
    """For add_key_sources."""
    told = [(tally.key_id, address, source) for tally in tallies for address, source in tally.sources.items()]
    if not told:
        return ()
    return (
        texts([key_id for key_id, _, _ in told]),
        texts([address for _, address, _ in told]),
        moments([source.first_time for _, _, source in told]),
        moments([source.last_time for _, _, source in told]),
        integers([source.count for _, _, source in told]),
    )


def uses(tallies: Sequence[KeyTally]) -> Columns:
    """For add_key_uses."""
    told: list[tuple[str, Use]] = [(tally.key_id, use) for tally in tallies for use in tally.uses]
    if not told:
        return ()
    return (
        texts([key_id for key_id, _ in told]),
        moments([use.time for _, use in told]),
        integers([use.outcome for _, use in told]),
        texts([use.client_ip for _, use in told]),
        texts([use.user for _, use in told]),
        texts([use.request.method for _, use in told]),
        texts([use.request.host for _, use in told]),
        texts([use.request.path for _, use in told]),
        texts([use.request.user_agent for _, use in told]),
    )
