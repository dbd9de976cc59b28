"""Every mutant, with the scenario that it does not survive."""

from __future__ import annotations

from latchgate_server.admin.barrier import Barrier
from latchgate_server.admin.mutations import Mutations
from latchgate_server.storage.feed_link import PostgresFeedLink
from latchgate_server.storage.replica_table import PostgresReplicaTable
from latchgate_server.verify.cache import RecordCache
from latchgate_server.verify.feed import Feed
from latchgate_server.verify.loader import RecordLoader
from latchgate_server.verify.verifier import Verifier
from tests.consistency.mutants import clients, imports, scenarios
from tests.consistency.mutants.mutant import Mutant

_UPSERT = "await link.beat(self._replica_id, self._told, self._lease)"
_READ = "read = await link.read_changes(self._cache.applied_revision)"
_EVICT = "self._evict(read)"
_RENEW = "self._valid_until = began + self._lease - margin(self._lease)"
_ACKNOWLEDGE = "await self._acknowledge(link)"
_ACKNOWLEDGE_AT_ONCE = "await link.acknowledge(self._replica_id, read.revision)"

_BEAT = (
    Mutant(
        "the upsert commits before the read of changes",
        Feed,
        "beat",
        ((f"{_UPSERT}\n{_READ}", f"{_READ}\n{_UPSERT}"),),
        scenarios.a_new_replica_beats_while_a_mutation_commits,
    ),
    Mutant(
        "nothing is acknowledged before it is evicted",
        Feed,
        "beat",
        ((f"{_EVICT}\n{_RENEW}\n{_ACKNOWLEDGE}", f"{_ACKNOWLEDGE_AT_ONCE}\n{_EVICT}\n{_RENEW}"),),
        scenarios.a_mutation_looks_between_an_acknowledgement_and_what_follows,
    ),
    Mutant(
        "the lease counts only after the eviction",
        Feed,
        "beat",
        ((f"{_READ}\n{_EVICT}\n{_RENEW}", f"{_RENEW}\n{_READ}\n{_EVICT}"),),
        scenarios.a_forgotten_replica_comes_back,
    ),
    Mutant(
        "the lease counts from before the upsert",
        Feed,
        "beat",
        ((_UPSERT, f"{_UPSERT}\nbegan = self._clock.monotonic()"),),
        scenarios.a_replica_is_forgotten_within_a_beat,
    ),
    Mutant(
        "a replica uses its lease less a margin",
        Feed,
        "beat",
        ((_RENEW, "self._valid_until = began + self._lease"),),
        scenarios.a_replicas_clock_runs_slow,
    ),
    Mutant(
        "a new connection forgets what the last one taught",
        Feed,
        "_follow",
        (("self._cache.restart(revision)", "pass"),),
        scenarios.a_failover_loses_commits_and_others_take_their_numbers,
    ),
    Mutant(
        "a glance renews no lease",
        Feed,
        "glance",
        ((_EVICT, f"{_EVICT}\nself._valid_until = self._clock.monotonic() + self._lease - margin(self._lease)"),),
        scenarios.a_forgotten_replica_glances_at_the_changes,
    ),
    Mutant(
        "a glance acknowledges nothing before it is evicted",
        Feed,
        "glance",
        ((f"{_EVICT}\n{_ACKNOWLEDGE}", f"{_ACKNOWLEDGE_AT_ONCE}\n{_EVICT}"),),
        scenarios.a_mutation_looks_between_the_acknowledgement_of_a_glance_and_what_follows,
    ),
    Mutant(
        "who needs a pruned change evicts everything",
        PostgresFeedLink,
        "read_changes",
        (
            (
                "if after < pruned or after > revision or len(rows) > CHANGES_AT_ONCE:",
                "if after > revision or len(rows) > CHANGES_AT_ONCE:",
            ),
        ),
        scenarios.a_change_is_pruned_before_a_replica_read_it,
    ),
)

_KEEP = "if life == self._life and loaded.revision >= self.applied_revision:"

_LOADS = (
    Mutant(
        "a load older than what was applied meanwhile is not kept",
        RecordCache,
        "finish_load",
        ((_KEEP, "if life == self._life:"),),
        scenarios.a_load_is_under_way_during_a_revocation,
    ),
    Mutant(
        "a load from before a restart of the cache is not kept",
        RecordCache,
        "finish_load",
        ((_KEEP, "if loaded.revision >= self.applied_revision:"),),
        scenarios.a_load_is_under_way_during_a_failover_that_loses_commits,
    ),
    Mutant(
        "a call gets no load that was sent before it began",
        RecordLoader,
        "_run_batch",
        (
            (
                "batch = {key_id: self._waiting.pop(key_id) for key_id in list(self._waiting)[:BATCH]}",
                "batch = {key_id: self._waiting[key_id] for key_id in list(self._waiting)[:BATCH]}",
            ),
            (
                "await self._run_query(batch)",
                "await self._run_query(batch)\nself._waiting = {}",
            ),
        ),
        scenarios.a_decision_without_lease_meets_an_older_load,
    ),
    Mutant(
        "the lease is checked in the step in which the record is taken",
        Verifier,
        "verify",
        (
            (
                "verification = self.verify_from_memory(key_string, question, at_least_revision)",
                """\
held = self._cache.get(key_string.partition(".")[0])
await self._clock.sleep(0.0)
if held is not None and self._feed.has_lease():
    return self._decide(_Known(held, self._cache.applied_revision), question)
verification = self.verify_from_memory(key_string, question, at_least_revision)""",
            ),
        ),
        scenarios.a_lease_is_renewed_while_a_decision_is_under_way,
    ),
)

_READ_ROWS = "replicas = await self._complete_replicas()"
_DEADLINE = "replica.replica_id: _Lagging(replica, read_at + replica.lease + margin(replica.lease))"

_MUTATIONS = (
    Mutant(
        "a mutation waits for the replicas",
        Barrier,
        "_wait",
        (("while lagging:", "while False:"),),
        scenarios.a_replica_that_knows_the_key_does_nothing,
    ),
    Mutant(
        "a mutation waits longer than the lease, by a margin",
        Barrier,
        "_wait",
        ((_DEADLINE, "replica.replica_id: _Lagging(replica, read_at + replica.lease)"),),
        scenarios.a_replicas_clock_runs_slow,
    ),
    Mutant(
        "a mutation counts leases from after it read the rows",
        Barrier,
        "_wait",
        ((_DEADLINE, "replica.replica_id: _Lagging(replica, began + replica.lease + margin(replica.lease))"),),
        scenarios.a_mutation_pauses_before_it_looks_at_the_rows,
    ),
    Mutant(
        "a row is deleted only while it holds the beat that was waited for",
        PostgresReplicaTable,
        "expire",
        (
            (
                'await self._pool.execute(SQL["expire_replica"], replica.replica_id, replica.beat, timeline)',
                'await self._pool.execute("DELETE FROM replicas WHERE replica_id = $1", replica.replica_id)',
            ),
        ),
        scenarios.a_replica_beats_while_a_mutation_waits_for_its_lease,
    ),
    Mutant(
        "a change that a promotion may have lost is not answered as if it stood",
        Barrier,
        "_drop_confirmed",
        (("_unless_lost(replicas, timeline)", "pass"),),
        scenarios.a_promotion_loses_the_row_of_a_paused_replica,
    ),
    Mutant(
        "rows that a promotion may have lost are waited for as long as any lease",
        Barrier,
        "_all_rows",
        (("await self._clock.sleep(max(0.0, ends_at - self._clock.monotonic()))", "pass"),),
        scenarios.a_promotion_has_lost_the_row_of_a_paused_replica,
    ),
    Mutant(
        "only the timeline that was waited for is trusted",
        Barrier,
        "_all_rows",
        (
            (
                "await self._table.trust(timeline)",
                "await self._table.trust((await self._table.read()).timeline)",
            ),
        ),
        scenarios.a_second_promotion_comes_while_a_mutation_waits_out_the_first,
    ),
    Mutant(
        "a mutation that changed nothing waits for the state that it found",
        Mutations,
        "_commit",
        (
            (
                "revision = transaction.revision - 1 if trail.is_empty else transaction.revision",
                "revision = 0 if trail.is_empty else transaction.revision",
            ),
        ),
        scenarios.a_revocation_is_given_up_and_repeated,
    ),
)

MUTANTS = _BEAT + _LOADS + _MUTATIONS + imports.MUTANTS + clients.MUTANTS
