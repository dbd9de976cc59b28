"""The path of a verification, from top to bottom."""

from __future__ import annotations

import asyncio
import hmac
from typing import NamedTuple

from latchgate_server.core import key_format
from latchgate_server.core.charging import NO_CHARGE, Charge
from latchgate_server.core.errors import RevisionNotReached
from latchgate_server.core.model import DenialReason, Question
from latchgate_server.core.policy import decide
from latchgate_server.core.ports import ChargesLimits, Clock, RenewsHashes
from latchgate_server.core.record import Record
from latchgate_server.core.verification import Verification
from latchgate_server.hashing import SecretHasher
from latchgate_server.verify.cache import Entry, RecordCache
from latchgate_server.verify.feed import Feed
from latchgate_server.verify.loader import RecordLoader
from latchgate_server.verify.outage import Outage


class _Known(NamedTuple):
    """A cache entry that may be decided on. revision: of the state that it belongs to."""

    entry: Entry
    revision: int
    stale: bool = False


class Verifier:
    """Decides about credentials. The same for VerifyService, for Envoy and for administrators."""

    def __init__(
        self,
        *,
        cache: RecordCache,
        loader: RecordLoader,
        feed: Feed,
        outage: Outage,
        hasher: SecretHasher,
        renewal: RenewsHashes,
        limits: ChargesLimits,
        clock: Clock,
    ) -> None:
        self._cache = cache
        self._loader = loader
        self._feed = feed
        self._outage = outage
        self._hasher = hasher
        self._renewal = renewal
        self._limits = limits
        self._clock = clock
        self._proofs: dict[tuple[str, str, bytes], asyncio.Task[bool]] = {}

    async def verify(self, key_string: str, question: Question, at_least_revision: int = 0) -> Verification:
        """Decide about a credential as it was presented.

        at_least_revision: decide on no older state; 0 for whatever is current here.
        Raises CannotDecide where there is no telling, and RevisionNotReached.
        """
        verification = self.verify_from_memory(key_string, question, at_least_revision)
        if verification is not None:
            return verification
        presented = key_format.parse(key_string)
        assert presented is not None, "else memory would have told"
        key_id, secret = presented
        assert secret is not None, "likewise"
        known = self._recall(key_id, at_least_revision) or await self._obtain(key_id, at_least_revision)
        # From here on nothing is checked again: what was taken was right at a moment after this call began.
        verification = self._answer(known, secret, question)
        if verification is not None:
            return verification
        if not await self._is_proven(known.entry, secret):
            return _denied(DenialReason.INVALID_SECRET, known)
        return self._decide(known, question) or await self._charge(known, question)

    def verify_from_memory(
        self, key_string: str, question: Question, at_least_revision: int = 0
    ) -> Verification | None:
        """The same, where neither the database nor Argon2 need be asked; else None."""
        if not key_string:
            return Verification(denial_reason=DenialReason.MISSING_API_KEY)
        presented = key_format.parse(key_string)
        if presented is None:
            return Verification(denial_reason=DenialReason.INVALID_API_KEY)
        key_id, secret = presented
        if secret is None:
            genuine = self._hasher.is_genuine_key_id(key_id)
            reason = DenialReason.SECRET_REQUIRED if genuine else DenialReason.INVALID_API_KEY
            return Verification(denial_reason=reason)
        known = self._recall(key_id, at_least_revision)
        if known is not None:
            return self._answer(known, secret, question)
        if not self._hasher.is_genuine_key_id(key_id):
            return Verification(denial_reason=DenialReason.INVALID_API_KEY)
        return None

    def _recall(self, key_id: str, at_least_revision: int) -> _Known | None:
        """What memory may tell: the entry is taken and the lease checked in one step, with no await between."""
        entry = self._cache.get(key_id)
        revision = self._cache.applied_revision
        if entry is not None and self._feed.has_lease() and revision >= at_least_revision:
            return _Known(entry, revision)
        return None

    async def _obtain(self, key_id: str, at_least_revision: int) -> _Known:
        """What the database tells, or memory after one more look at what changed."""
        if self._cache.applied_revision < at_least_revision:
            await self._feed.next_look()
            known = self._recall(key_id, at_least_revision)
            if known is not None:
                return known
        if self._outage.allows_stale():
            entry = self._cache.get(key_id)
            if entry is not None and self._cache.applied_revision >= at_least_revision:
                self._outage.note_stale()
                return _Known(entry, self._cache.applied_revision, stale=True)
        loaded = await self._loader.load(key_id)
        if loaded.revision < at_least_revision:
            raise RevisionNotReached(at_least_revision, loaded.revision)
        return _Known(loaded.entry, loaded.revision)

    def _answer(self, known: _Known, secret: str, question: Question) -> Verification | None:
        """The decision; None where Argon2 must tell whether the secret is right, or others what is left of limits."""
        record = known.entry.record
        if record is None:
            return _denied(DenialReason.INVALID_API_KEY, known)
        proven = known.entry.proven
        if proven is not None and hmac.compare_digest(proven, self._hasher.digest(secret)):
            return self._decide(known, question)
        key_id = record.identity.key_id
        if not key_format.is_whole_secret(key_id, secret) or self._hasher.refuses(key_id, secret, record.secret):
            return _denied(DenialReason.INVALID_SECRET, known)
        return None

    async def _is_proven(self, entry: Entry, secret: str) -> bool:
        """Whether Argon2 says that the secret is right. Calls for the same key and secret share the answer."""
        record = entry.record
        assert record is not None, "a key that does not exist has no secret"
        digest = self._hasher.digest(secret)
        if entry.proven is not None and hmac.compare_digest(entry.proven, digest):
            return True
        same = (record.identity.key_id, record.secret.phc, digest)
        proof = self._proofs.get(same)
        if proof is None:
            proof = asyncio.get_running_loop().create_task(self._prove(record, secret))
            self._proofs[same] = proof
            proof.add_done_callback(lambda _: self._proofs.pop(same))
        # Whoever gives up must not take the others' answer away.
        proven = await asyncio.shield(proof)
        if proven:
            entry.proven = digest
        return proven

    async def _prove(self, record: Record, secret: str) -> bool:
        key_id = record.identity.key_id
        proven = await self._hasher.proves(key_id, secret, record.secret)
        if proven and self._hasher.needs_renewal(record.secret):
            self._renewal.renew(key_id, secret, record.secret)
        return proven

    def _decide(self, known: _Known, question: Question) -> Verification | None:
        """The decision about a proven key; None where its limits must be asked of others."""
        record = known.entry.record
        assert record is not None, "a key that does not exist is denied before"
        reason = decide(record, question, self._clock.now())
        charge = NO_CHARGE
        if reason is None and question.cost is not None and (record.limits.rates or record.limits.quotas):
            taken = self._limits.charge_from_memory(record.limits, question.cost)
            if taken is None:
                return None
            charge, reason = taken, taken.denial_reason
        return _told(known, record, question, reason, charge)

    async def _charge(self, known: _Known, question: Question) -> Verification:
        """The decision about a key that passes every other check."""
        record = known.entry.record
        assert record is not None, "a key that does not exist is denied before"
        assert question.cost is not None, "else there are no limits to ask"
        charge = await self._limits.charge(record.limits, question.cost)
        return _told(known, record, question, charge.denial_reason, charge)


def _told(
    known: _Known, record: Record, question: Question, reason: DenialReason | None, charge: Charge
) -> Verification:
    user = question.act_as if question.act_as and record.may_act_as else record.identity.user
    return Verification(reason, record, user, known.revision, known.stale, charge)


def _denied(reason: DenialReason, known: _Known) -> Verification:
    return Verification(denial_reason=reason, revision=known.revision, stale=known.stale)
