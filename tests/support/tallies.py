"""What was collected of keys' uses, as a test needs it."""

from __future__ import annotations

from latchgate_server.core.model import HashProfile, Key, SecretHash, Tenant
from latchgate_server.core.record import Record, build_record
from latchgate_server.core.usage_batch import UsageBatch
from latchgate_server.verify.tally import Tallies


def record_of(key_id: str) -> Record:
    """A key of the tenant acme and its owner ann."""
    secret = SecretHash(profile=HashProfile.GENERATED, pepper_id="p", phc="", tag=None)
    key = Key(key_id=key_id, tenant_id="acme", owner="ann")
    return build_record(key=key, secret=secret, tenant=Tenant(tenant_id="acme"), plan=None, roles=[], revision=1)


def taken(tallies: Tallies) -> UsageBatch:
    """All that was collected, fit to be written."""
    batch = UsageBatch()
    tallies.seal()
    while tallies.has_sealed:
        tallies.take(batch)
    return batch
