"""The path of a verification, from top to bottom."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from latchgate_server.core import key_format
from latchgate_server.core.charging import NO_CHARGE, Charge
from latchgate_server.core.errors import RevisionNotReached
from latchgate_server.core.model import DenialReason, HashProfile, Question
from latchgate_server.core.policy import decide
from latchgate_server.core.ports import Clock, RenewsHashes
from latchgate_server.core.record import Record
from latchgate_server.core.usage import RecordsUsage
from latchgate_server.core.verification import Verification
from latchgate_server.hashing import SecretHasher
from latchgate_server.verify.cache import Entry, RecordCache
from latchgate_server.verify.feed import Feed
from latchgate_server.verify.imported import ImportedForms
from latchgate_server.verify.limits import LimitCharger
from latchgate_server.verify.loader import LoadedEntry, RecordLoader
from latchgate_server.verify.outage import Outage
from latchgate_server.verify.proofs import Proofs


class _Known:
    """A cache entry that may be decided on.

    revision: of the state that it belongs to. by_form: whether it was found by the form of an imported key.
    """

    __slots__ = ("by_form", "entry", "revision", "stale")

    def __init__(self, entry: Entry, revision: int, stale: bool = False, by_form: bool = False) -> None:
        self.entry: Final = entry
        self.revision: Final = revision
        self.stale: Final = stale
        self.by_form: Final = by_form


@dataclass(frozen=True, slots=True)
class _Source:
    """Where entries come from, for our own key ids or for the forms of imported keys: from memory, and the database."""

    remember: Callable[[str], Entry | None]
    load: Callable[[str], Awaitable[LoadedEntry]]


_NOBODY: Final = Entry(None)
_NOTHING: Final = _Known(_NOBODY, 0)
"""Nothing was looked up."""


class Verifier:
    """Decides about credentials. The same for VerifyService, for Envoy and for administrators."""

    def __init__(  # noqa: PLR0913 - all that a decision depends on
        self,
        *,
        cache: RecordCache,
        loader: RecordLoader,
        feed: Feed,
        outage: Outage,
        hasher: SecretHasher,
        renewal: RenewsHashes,
        limits: LimitCharger,
        usage: RecordsUsage,
        clock: Clock,
    ) -> None:
        self._cache = cache
        self._loader = loader
        self._feed = feed
        self._outage = outage
        self._hasher = hasher
        self._limits = limits
        self._usage = usage
        self._clock = clock
        self._proofs = Proofs(hasher, renewal, clock)
        self._imported = ImportedForms(cache, loader, hasher, clock)
        self._own = _Source(cache.get, loader.load)
        self._forms = _Source(self._imported.remember, self._imported.load)

    async def verify(self, key_string: str, question: Question, at_least_revision: int = 0) -> Verification:
        """Decide about a credential as it was presented.

        at_least_revision: decide on no older state; 0 for whatever is current here.
        Raises CannotDecide where there is no telling, and RevisionNotReached.
        """
        verification = self.verify_from_memory(key_string, question, at_least_revision)
        if verification is not None:
            return verification
        known, secret = await self._find(key_string, at_least_revision)
        # From here on nothing is checked again: what was taken was right at a moment after this call began.
        verification = self._answer(known, secret, question)
        if verification is not None:
            return verification
        if not await self._proofs.is_proven(known.entry, secret, question.client_ip):
            return self._deny(DenialReason.INVALID_SECRET, question, known)
        return self._decide(known, question) or await self._charge(known, question)

    async def identify(self, key_string: str, client_ip: str) -> Record | None:
        """The record of the key that the credential proves, whatever it may be used for; None where it proves none.

        client_ip: where wrong tries count. Raises as `verify` does.
        """
        if not key_format.is_presentable(key_string):
            return None
        presented = key_format.parse(key_string)
        if presented is not None and presented.secret is None and self._hasher.is_genuine_key_id(presented.key_id):
            return None
        known, secret = await self._find(key_string, 0)
        if self._is_refused(known, secret) is not None:
            return None
        return known.entry.record if await self._proofs.is_proven(known.entry, secret, client_ip) else None

    def verify_from_memory(
        self, key_string: str, question: Question, at_least_revision: int = 0
    ) -> Verification | None:
        """The same, where neither the database nor Argon2 need be asked; else None."""
        if not key_string:
            return self._deny(DenialReason.MISSING_API_KEY, question)
        presented = key_format.parse(key_string)
        if presented is None:
            if not key_format.is_presentable(key_string):
                return self._deny(DenialReason.INVALID_API_KEY, question)
            return self._imported_from_memory(key_string, question, at_least_revision)
        key_id, secret = presented.key_id, presented.secret
        if secret is None:
            if self._hasher.is_genuine_key_id(key_id):
                return self._deny(DenialReason.SECRET_REQUIRED, question)
            return self._imported_from_memory(key_string, question, at_least_revision)
        known = self._recall(key_id, at_least_revision, self._own)
        if known is not None and known.entry.is_generated:
            return self._answer(known, secret, question)
        if not self._hasher.is_genuine_key_id(key_id):
            return self._imported_from_memory(key_string, question, at_least_revision)
        return None if known is None else self._answer(known, secret, question)

    def _imported_from_memory(self, key_string: str, question: Question, at_least_revision: int) -> Verification | None:
        """The same for a credential that is none of ours: it may be another system's."""
        revision = self._cache.applied_revision
        if self._imported.are_none and self._feed.has_lease() and revision >= at_least_revision:
            return self._deny(DenialReason.INVALID_API_KEY, question, _Known(_NOBODY, revision))
        for form, secret in self._imported.candidates(key_string):
            known = self._recall(form, at_least_revision, self._forms)
            if known is None:
                return None
            if known.entry.is_found_by(form):
                return self._answer(known, secret, question)
        return self._deny(DenialReason.INVALID_API_KEY, question, _Known(_NOBODY, revision))

    async def _find(self, key_string: str, at_least_revision: int) -> tuple[_Known, str]:
        """The key that the credential names, and its secret. Raises as `verify` does."""
        presented = key_format.parse(key_string)
        if presented is None or not self._hasher.is_genuine_key_id(presented.key_id):
            return await self._find_imported(key_string, at_least_revision)
        key_id, secret = presented.key_id, presented.secret
        assert secret is not None, "else memory would have told"
        known = self._recall(key_id, at_least_revision, self._own)
        return known or await self._obtain(key_id, at_least_revision, self._own), secret

    async def _find_imported(self, key_string: str, at_least_revision: int) -> tuple[_Known, str]:
        found: list[_Known] = []
        for form, secret in self._imported.candidates(key_string):
            known = self._recall(form, at_least_revision, self._forms)
            if known is None:
                known = await self._obtain_form(form, at_least_revision)
            if known.entry.is_found_by(form):
                return known, secret
            found.append(known)
        oldest = min(found, key=lambda known: known.revision)
        return _Known(Entry(None), oldest.revision, any(known.stale for known in found)), ""

    async def _obtain_form(self, form: str, at_least_revision: int) -> _Known:
        if self._feed.has_lease():
            await self._imported.refresh()
            known = self._recall(form, at_least_revision, self._forms)
            if known is not None:
                return known
        return await self._obtain(form, at_least_revision, self._forms)

    def _recall(self, name: str, at_least_revision: int, source: _Source) -> _Known | None:
        """What memory may tell: the entry is taken and the lease checked in one step, with no await between."""
        entry = source.remember(name)
        revision = self._cache.applied_revision
        if entry is not None and self._feed.has_lease() and revision >= at_least_revision:
            return _Known(entry, revision, by_form=source is self._forms)
        return None

    async def _obtain(self, name: str, at_least_revision: int, source: _Source) -> _Known:
        """What the database tells, or memory after one more look at what changed."""
        if self._cache.applied_revision < at_least_revision:
            await self._feed.next_look()
            known = self._recall(name, at_least_revision, source)
            if known is not None:
                return known
        if self._outage.allows_stale():
            entry = source.remember(name)
            if entry is not None and self._cache.applied_revision >= at_least_revision:
                self._outage.note_stale()
                return _Known(entry, self._cache.applied_revision, stale=True, by_form=source is self._forms)
        loaded = await source.load(name)
        if loaded.revision < at_least_revision:
            raise RevisionNotReached(at_least_revision, loaded.revision)
        return _Known(loaded.entry, loaded.revision, by_form=source is self._forms)

    def _answer(self, known: _Known, secret: str, question: Question) -> Verification | None:
        """The decision; None where Argon2 must tell whether the secret is right, or others what is left of limits."""
        if known.entry.record is None:
            return self._deny(DenialReason.INVALID_API_KEY, question, known)
        proven = known.entry.proven
        if proven is not None:
            if hmac.compare_digest(proven, self._hasher.digest(secret)):
                return self._decide(known, question)
            if known.entry.is_generated:
                # Whatever is not the secret that was proven is wrong. Only of an imported key's, which may be one that
                # can be guessed, is every try to count (proofs.py).
                return self._deny(DenialReason.INVALID_SECRET, question, known)
        reason = self._is_refused(known, secret)
        return None if reason is None else self._deny(reason, question, known)

    def _is_refused(self, known: _Known, secret: str) -> DenialReason | None:
        """Why the secret is certainly wrong, told without Argon2; None where it may be right."""
        record = known.entry.record
        if record is None:
            return DenialReason.INVALID_API_KEY
        key_id = record.identity.key_id
        if record.secret.profile is HashProfile.DIGEST and not known.by_form:
            return DenialReason.INVALID_SECRET  # the key id was made for it here; its credential does not begin with it
        if self._hasher.refuses(key_id, secret, record.secret):
            return DenialReason.INVALID_SECRET
        # After the tag, which refuses nearly every wrong secret for less than a checksum costs.
        is_whole = record.secret.profile is not HashProfile.GENERATED or key_format.is_whole_secret(key_id, secret)
        return None if is_whole else DenialReason.INVALID_SECRET

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
        return self._tell(known, question, reason, charge)

    async def _charge(self, known: _Known, question: Question) -> Verification:
        """The decision about a key that passes every other check."""
        record = known.entry.record
        assert record is not None, "a key that does not exist is denied before"
        assert question.cost is not None, "else there are no limits to ask"
        charge = await self._limits.charge(record.limits, question.cost)
        return self._tell(known, question, charge.denial_reason, charge)

    def _tell(self, known: _Known, question: Question, reason: DenialReason | None, charge: Charge) -> Verification:
        """The decision about a proven key."""
        record = known.entry.record
        assert record is not None, "a key that does not exist is denied before"
        user = question.act_as if question.act_as and record.may_act_as else record.identity.user
        verification = Verification(reason, record, user, known.revision, known.stale, charge)
        self._usage.record(verification, question, record)
        return verification

    def _deny(self, reason: DenialReason, question: Question, known: _Known = _NOTHING) -> Verification:
        """A denial of whoever has proven nothing."""
        verification = Verification(denial_reason=reason, revision=known.revision, stale=known.stale)
        self._usage.record(verification, question, known.entry.record)
        return verification
