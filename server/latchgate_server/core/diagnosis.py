"""What `latchgate doctor` finds in what was measured of a deployment, and what to do about it: pure, check by check."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from latchgate_server.core.replication import LONGEST_LEASE, Replica, margin

CLOCK_WARNING = 1.0
CLOCK_WRONG = 5.0
"""Seconds between two clocks. Only expiry compares them, so that a key ends by as much too early or too late."""

_SAFE_COMMITS = frozenset({"on", "remote_apply"})


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. check: its name. advice: what to do about it; empty where there is nothing to do."""

    check: str
    level: Level
    found: str
    advice: str = ""


class LimitStoreFacts(NamedTuple):
    """What a store of rate limits answered.

    nodes: its servers that keep limits. silent: those that fail, each with its reason. slots_without_owner: how much of
    a cluster nobody keeps.
    """

    nodes: Sequence[str]
    silent: Sequence[str]
    slots_without_owner: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What a database server says of itself, whatever is in the database.

    version: the major one. settings: by name, as a session of anybody's gets them. own_commit: synchronous_commit in
    sessions set up like ours. skew, uncertainty: seconds that its clock is ahead of ours, give or take so many.
    connections: that it accepts for us; taken: by others than Latchgate. standbys: that follow it.
    """

    version: int
    is_standby: bool
    settings: Mapping[str, str]
    own_commit: str
    skew: float
    uncertainty: float
    connections: int
    taken: int
    standbys: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """What is in a database whose schema is current.

    peppers: how many keys were hashed under each, by pepper id; audit_peppers: those that the audit chain needs.
    administrators: how many keys of the tenant `latchgate` can administer everything; None: there is no such tenant.
    """

    timeline_is_trusted: bool
    revision: int
    peppers: Mapping[str, int]
    audit_peppers: Collection[str]
    administrators: int | None
    disabled_triggers: Sequence[str]


@dataclass(frozen=True, slots=True)
class Watched:
    """A replica that was watched for up to its lease. beats: whether it renewed that meanwhile."""

    replica: Replica
    beats: bool


def judge_server(facts: ServerFacts, lease: float, processes: int, per_process: int) -> Iterator[Finding]:
    """Findings about a database server.

    lease: seconds. processes: how many of ours share it. per_process: the connections that each may open.
    """
    yield _standby(facts)
    yield _clock(facts)
    yield from _durability(facts)
    yield _idle_timeout(facts, lease)
    yield _connections(facts, processes, per_process)


def judge_data(facts: DataFacts, configured: Sequence[str]) -> Iterator[Finding]:
    """Findings about what is in the database. configured: the ids of this machine's peppers, newest first."""
    yield _timeline(facts)
    yield _triggers(facts)
    if configured:
        yield from _peppers(facts, configured)
    yield _administrators(facts)


def judge_replicas(watched: Sequence[Watched], revision: int) -> Iterator[Finding]:
    """Findings about the processes that serve. revision: the newest when watching began."""
    if not watched:
        advice = "start one: latchgate serve"
        yield Finding("replicas", Level.WRONG, "no server process has a row in the database", advice)
        return
    silent = [entry.replica for entry in watched if not entry.beats]
    behind = [entry.replica for entry in watched if entry.beats and entry.replica.applied_revision < revision]
    for replica in silent:
        found = f"{replica.replica_id} has not renewed its lease of {replica.lease:g}s; the process is gone or hangs"
        advice = "the next change waits for its lease once and then forgets it; if the process runs, see its log"
        yield Finding("replicas", Level.WARNING, found, advice)
    for replica in behind:
        found = f"{replica.replica_id} is at revision {replica.applied_revision}, behind {revision}, and stays there"
        advice = "every change waits for it; see the log of that process, and restart it"
        yield Finding("replicas", Level.WRONG, found, advice)
    live = len(watched) - len(silent)
    if not live:
        yield Finding("replicas", Level.WRONG, "no server process renews its lease", "start one: latchgate serve")
    elif not silent and not behind:
        yield Finding("replicas", Level.OK, f"{live} renewing their leases, none behind revision {revision}")


def judge_limit_store(facts: LimitStoreFacts | str | None, denies: bool) -> Finding:
    """A finding about the store that shares rate limits.

    facts: why none could be had, where it does not answer; None where no store is configured.
    denies: whether keys with rate limits are denied without it.
    """
    if facts is None:
        return Finding("limit store", Level.OK, "none: of each rate limit, every process enforces its share")
    if isinstance(facts, str):
        problem = f"it does not answer: {facts}"
    elif facts.silent:
        problem = f"{len(facts.silent)} of {len(facts.nodes)} nodes failed: {'; '.join(facts.silent)}"
    elif facts.slots_without_owner:
        problem = f"no node of the cluster keeps {facts.slots_without_owner} of its slots"
    else:
        answers = "it answers" if len(facts.nodes) == 1 else f"all {len(facts.nodes)} nodes that keep limits answer"
        return Finding("limit store", Level.OK, answers)
    follows = "keys with rate limits are denied" if denies else "of each rate limit, every process enforces its share"
    advice = "see that it runs, and that LATCHGATE_LIMIT_STORE names it"
    return Finding("limit store", Level.WRONG if denies else Level.WARNING, f"{problem}; {follows}", advice)


def _standby(facts: ServerFacts) -> Finding:
    found = f"PostgreSQL {facts.version} answers"
    if facts.is_standby:
        advice = "let LATCHGATE_DATABASE_URL name the primary, or several hosts of which one is"
        return Finding("database", Level.WRONG, f"{found}, but it is a standby, which takes no changes", advice)
    return Finding("database", Level.OK, found)


def _clock(facts: ServerFacts) -> Finding:
    apart = max(0.0, abs(facts.skew) - facts.uncertainty)
    direction = "ahead of" if facts.skew > 0 else "behind"
    if apart < CLOCK_WARNING:
        return Finding("clock", Level.OK, f"this machine and the database agree to {CLOCK_WARNING:g}s")
    found = f"the database's clock is {abs(facts.skew):.1f}s {direction} this machine's"
    advice = "keys expire by as much too early or too late; synchronise both machines by NTP"
    return Finding("clock", Level.WRONG if apart >= CLOCK_WRONG else Level.WARNING, found, advice)


def _durability(facts: ServerFacts) -> Iterator[Finding]:
    problems = list(_lost_by_crashes(facts))
    if facts.standbys and not facts.settings["synchronous_standby_names"]:
        found = f"{facts.standbys} standbys follow asynchronously: a failover can lose the last revocations"
        advice = "set synchronous_standby_names; docs/consistency.md says what that promises"
        problems.append(Finding("durability", Level.WARNING, found, advice))
    yield from problems or [
        Finding("durability", Level.OK, "fsync, full_page_writes and synchronous_commit keep what is acknowledged")
    ]


def _lost_by_crashes(facts: ServerFacts) -> Iterator[Finding]:
    lost = "a crash of the database can lose changes that were acknowledged"
    for name in ("fsync", "full_page_writes"):
        if facts.settings[name] != "on":
            advice = f"ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf();"
            yield Finding("durability", Level.WRONG, f"{name} is {facts.settings[name]}: {lost}", advice)
    if facts.own_commit not in _SAFE_COMMITS:
        found = f"synchronous_commit is {facts.own_commit} in Latchgate's own sessions: {lost}"
        advice = "something between here and the database, such as a pooler, drops their settings; connect past it"
        yield Finding("durability", Level.WRONG, found, advice)
    elif (commit := facts.settings["synchronous_commit"]) not in _SAFE_COMMITS:
        found = f"synchronous_commit is {commit} by default: a crash can lose changes that were made by hand in SQL"
        yield Finding("durability", Level.WRONG, found, "set it to on for the server, this database and its roles")


def _idle_timeout(facts: ServerFacts, lease: float) -> Finding:
    milliseconds = int(facts.settings["idle_in_transaction_session_timeout"])
    if 0 < milliseconds <= lease * 1_000:
        return Finding("idle sessions", Level.OK, f"ended after {milliseconds / 1_000:g}s in an open transaction")
    found = "a forgotten session in a transaction can hold up every change"
    setting = f"idle_in_transaction_session_timeout = '{int(lease * 800)}ms'"
    advice = f"let the database's owner run ALTER DATABASE … SET {setting}, or `latchgate migrate`, which does so"
    return Finding("idle sessions", Level.WARNING, found, advice)


def _connections(facts: ServerFacts, processes: int, per_process: int) -> Finding:
    needed = processes * per_process
    found = f"{facts.connections} allowed, {facts.taken} taken by others, up to {needed} for {processes} of ours"
    if needed + facts.taken <= facts.connections:
        return Finding("connections", Level.OK, found)
    advice = f"raise max_connections by {needed + facts.taken - facts.connections} or more, or run fewer processes"
    return Finding("connections", Level.WRONG, found, advice)


def _timeline(facts: DataFacts) -> Finding:
    if facts.timeline_is_trusted:
        return Finding("timeline", Level.OK, "the database's history is the one that leases were noted in")
    wait = LONGEST_LEASE + margin(LONGEST_LEASE)
    found = f"the database was promoted or restored since the last change: the next one waits {wait:.0f}s longer"
    return Finding("timeline", Level.WARNING, found, "make any change now, so that the next urgent one does not wait")


def _triggers(facts: DataFacts) -> Finding:
    if not facts.disabled_triggers:
        return Finding("triggers", Level.OK, "every change in SQL is noticed")
    found = f"switched off: {', '.join(facts.disabled_triggers)}; changes there are not noticed"
    return Finding("triggers", Level.WRONG, found, "ALTER TABLE … ENABLE ALWAYS TRIGGER …; then restart every server")


def _peppers(facts: DataFacts, configured: Sequence[str]) -> Iterator[Finding]:
    missing = {pepper_id: keys for pepper_id, keys in facts.peppers.items() if pepper_id not in configured}
    for pepper_id, keys in sorted(missing.items()):
        found = f"{keys} keys were hashed under the pepper {pepper_id}, which is not configured: none of them verifies"
        advice = "put it back, behind the newest one, in LATCHGATE_PEPPER or LATCHGATE_PEPPER_FILE"
        yield Finding("pepper", Level.WRONG, found, advice)
    for pepper_id in sorted(set(facts.audit_peppers) - {*configured, *missing}):
        found = f"audit events were chained under the pepper {pepper_id}, which is not configured"
        yield Finding("pepper", Level.WARNING, found, "`latchgate audit verify` needs it; keep it where you run that")
    older = sum(keys for pepper_id, keys in facts.peppers.items() if pepper_id in configured[1:])
    if older:
        found = f"{older} keys are still hashed under an older pepper"
        yield Finding("pepper", Level.OK, found, "keep it until there are none; each is hashed anew at its next use")
    elif not missing:
        yield Finding("pepper", Level.OK, f"all {sum(facts.peppers.values())} keys are hashed under the current one")


def _administrators(facts: DataFacts) -> Finding:
    if facts.administrators is None:
        return Finding("administrators", Level.WRONG, "there is none yet", "latchgate init")
    if not facts.administrators:
        found = "no key can administer everything any more"
        return Finding("administrators", Level.WRONG, found, "latchgate init --recover")
    return Finding("administrators", Level.OK, f"{facts.administrators} can administer everything")
