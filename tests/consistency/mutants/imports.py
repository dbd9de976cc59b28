"""Interleavings in which a broken rule lets a replica deny a key that was just imported.

A replica that has just found out that nobody knows a credential must forget that before ImportKeys returns, whether it
remembered it, its filter ruled it out, or it was only about to find out. Time and leases are those of scenarios.py.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

from latchgate_server.admin.imports import ImportDraft
from latchgate_server.core.model import DenialReason, Key
from latchgate_server.verify.cache import RecordCache
from latchgate_server.verify.imported import ImportedForms
from latchgate_server.verify.verifier import Verifier
from tests.consistency.mutants.mutant import BrokenPromise, Mutant
from tests.consistency.world import Replica, World


async def a_replica_has_ruled_the_credential_out(world: World) -> None:
    """By its filter, which has all that there was."""
    replica, credential = await _replica_with_filter(world)
    await _is_unknown(world, replica, credential)
    await _import(world, credential)
    await _is_known(world, replica, credential)


async def a_replica_remembers_that_nobody_knows_the_credential(world: World) -> None:
    """From the database, since its filter took it for one that may exist."""
    replica, credential = await _replica_with_filter(world)
    replica.cache.imports.may_hold = lambda _: True  # type: ignore[method-assign,assignment]  # as for some that it never saw
    await _is_unknown(world, replica, credential)
    await _import(world, credential)
    await _is_known(world, replica, credential)


async def a_replica_reads_its_filter_during_an_import(world: World) -> None:
    """The query is older than the import, its answer comes after the eviction."""
    replica = await world.start()
    await replica.run_to("idle")
    credential = _fresh(world)
    replica.reader.hold_forms = "forms"
    asking = asyncio.get_running_loop().create_task(replica.ask(credential))
    await world.stage.settle(asking, unless=lambda: world.stage.halted_at("forms") is not None)
    reading = world.stage.halted_at("forms")
    assert reading is not None
    await _import(world, credential)
    await world.stage.resume(reading)
    await asyncio.wait({asking}, timeout=5.0)
    await _is_known(world, replica, credential)


async def a_replica_without_a_lease_has_not_heard_of_the_import(world: World) -> None:
    """It was silent for a lease, so that nobody waits for it."""
    replica, credential = await _replica_with_filter(world)
    await _is_unknown(world, replica, credential)
    importing = await world.stage.start(world.import_key(_draft(world, credential)))
    await world.stage.advance(33.1)
    assert importing.done()
    await _is_known(world, replica, credential)


async def a_replica_connects_anew_after_a_failover_that_repeats_revisions(world: World) -> None:
    """Forms that came under revisions which the filter has read already, on the server that it left."""
    replica, credential = await _replica_with_filter(world)
    await _is_unknown(world, replica, credential)
    kept = await world.sql("SELECT revision FROM revision_clock")
    for _ in range(3):
        await world.sql("SELECT latchgate_begin_change()")
    other = _fresh(world)
    await _import(world, other)
    await _is_known(world, replica, other)
    # On the new primary the last import never was, and another comes under a lower number.
    await world.promote()
    lost = await world.sql("SELECT key_id FROM imported_forms WHERE form = $1", _form(world, other))
    await world.sql("DELETE FROM keys WHERE key_id = $1", lost)
    await world.sql("UPDATE revision_clock SET revision = $1", kept)
    await world.sql("DELETE FROM changes WHERE revision > $1", kept)
    await world.sql("UPDATE trusted_timeline SET timeline = latchgate_timeline()")
    importing = await world.stage.start(world.import_key(_draft(world, credential)))
    await replica.run_to("idle")
    await world.returned(importing)
    await _is_known(world, replica, credential)


async def a_foreign_key_is_renamed_by_hand(world: World) -> None:
    """A form that is changed is a new one, and the old one is none."""
    replica, credential = await _replica_with_filter(world)
    await _import(world, credential)
    await _is_known(world, replica, credential)
    await world.sql("UPDATE imported_forms SET form = form || 'x' WHERE form = $1", _form(world, credential))
    await replica.beat()
    if await _reason(world, replica, credential) is None:
        raise BrokenPromise("a form that is gone is still known")


def _fresh(world: World) -> str:
    return f"credential-{next(world.deployment.numbers)}"


def _draft(world: World, credential: str) -> ImportDraft:
    return ImportDraft(Key(key_id="", tenant_id=world.tenant_id), hashlib.sha256(credential.encode()).digest())


def _form(world: World, credential: str) -> str:
    return world.deployment.hasher.forms(hashlib.sha256(credential.encode()).digest())[0]


async def _replica_with_filter(world: World) -> tuple[Replica, str]:
    """A replica that has beaten and read its filter, and a credential that nobody knows."""
    replica = await world.start()
    await replica.run_to("idle")
    await _import(world, _fresh(world))
    await _is_unknown(world, replica, _fresh(world))
    return replica, _fresh(world)


async def _import(world: World, credential: str) -> None:
    await world.done(world.import_key(_draft(world, credential)))


async def _is_unknown(world: World, replica: Replica, credential: str) -> None:
    assert await _reason(world, replica, credential) is DenialReason.INVALID_API_KEY


async def _is_known(world: World, replica: Replica, credential: str) -> None:
    reason = await _reason(world, replica, credential)
    if reason is DenialReason.INVALID_API_KEY:
        raise BrokenPromise("a key that was imported is not known")
    assert reason is None


async def _reason(world: World, replica: Replica, credential: str) -> DenialReason | None:
    decision: asyncio.Task[Any] = await world.stage.start(replica.ask(credential))
    while not decision.done():
        await world.stage.resume(decision)
    return decision.result().denial_reason  # type: ignore[no-any-return]  # a Verification's


_BRANCH = """\
elif change.entity == "import":
    # Whatever was not found may be found now.
"""

MUTANTS = (
    Mutant(
        "an import ends the filter's word",
        RecordCache,
        "_evict",
        (
            (
                f"{_BRANCH}    self._absent.clear()\n    self.imports.note_change()",
                f"{_BRANCH}    self._absent.clear()",
            ),
        ),
        a_replica_has_ruled_the_credential_out,
    ),
    Mutant(
        "an import ends what was not found",
        RecordCache,
        "_evict",
        (
            (
                f"{_BRANCH}    self._absent.clear()",
                f"{_BRANCH}    pass",
            ),
        ),
        a_replica_remembers_that_nobody_knows_the_credential,
    ),
    Mutant(
        "forms from before what was applied are not all",
        RecordCache,
        "finish_forms",
        (("if is_last and revision >= self.applied_revision:", "if is_last:"),),
        a_replica_reads_its_filter_during_an_import,
    ),
    Mutant(
        "a form that changes takes its record along",
        RecordCache,
        "_evict",
        (('self._drop_dependents(Change("key", change.id))', "pass"),),
        a_foreign_key_is_renamed_by_hand,
    ),
    Mutant(
        "without a lease the filter counts for nothing",
        Verifier,
        "_recall",
        (
            (
                "if entry is not None and self._feed.has_lease() and revision >= at_least_revision:",
                "if entry is not None and (self._feed.has_lease() or source is self._forms):",
            ),
        ),
        a_replica_without_a_lease_has_not_heard_of_the_import,
    ),
    Mutant(
        "a new connection begins with an empty filter",
        RecordCache,
        "restart",
        (("self.imports.restart()", "self.imports.note_change()"),),
        a_replica_connects_anew_after_a_failover_that_repeats_revisions,
    ),
    Mutant(
        "the filter rules out only what it has read to the end",
        ImportedForms,
        "remember",
        (
            (
                "if imports.is_current and not imports.may_hold(self._hasher.digest(form)):",
                "if not imports.may_hold(self._hasher.digest(form)):",
            ),
        ),
        a_replica_has_ruled_the_credential_out,
    ),
)
