"""Records in memory: what was loaded and has not been evicted since.

The cache only ever evicts; it never changes a record. Whoever takes one from it must hold a valid lease at that very
moment (feed.py); the cache itself knows nothing of time.

A load is kept only if nothing that it may have missed was applied meanwhile: its snapshot is not older than the applied
revision, and the cache was not restarted under it. So no record is ever older than what was evicted.

A record is kept under what it was asked for by: its key id, or the form of an imported key (core/imported.py). The
filter of all such forms is kept here as well, since the same changes end it.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

from latchgate_server import observability
from latchgate_server.core.errors import CannotDecide
from latchgate_server.core.model import HashProfile
from latchgate_server.core.ports import Loaded
from latchgate_server.core.record import Record
from latchgate_server.core.replication import Change
from latchgate_server.verify.import_filter import ImportFilter, Place

_ABSENT_SHARE: Final = 10
_PASSED_OVER: Final = 64
"""How many records may be passed over to make room for one: it must not hold up verifications."""


class Entry:
    """A record, and what this process remembers of its secret.

    record: None for a key that does not exist.
    proven: a digest of the secret that verified (hashing.SecretHasher.digest), or None before it did.
    is_generated: whether this is a key whose credential we made ourselves.
    is_used: whether anybody asked for it since it was last passed over when room was made.
    """

    __slots__ = ("is_generated", "is_used", "proven", "record")

    def __init__(self, record: Record | None, proven: bytes | None = None) -> None:
        self.record = record
        self.proven = proven
        self.is_generated = record is not None and record.secret.profile is HashProfile.GENERATED
        self.is_used = False

    def is_found_by(self, form: str) -> bool:
        """Whether this is a key that is found by the form, and not just one whose key id reads like it."""
        if self.record is None:
            return False
        secret = self.record.secret
        if secret.profile is HashProfile.DIGEST:
            return hmac.compare_digest(secret.phc, form)
        return secret.profile is not HashProfile.GENERATED


class RecordCache:
    """A bounded map from key id to record, and one a tenth its size for keys that do not exist.

    Where room must be made, records that were used lately are passed over: once each (the CLOCK algorithm, in place of
    an exact order of use, which each verification would have to change).
    """

    def __init__(self, size: int) -> None:
        """size: how many records to keep."""
        self._size = size
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._absent: OrderedDict[str, Entry] = OrderedDict()
        # Records that go with the same changes are kept together: a tenant's keys have few different sets of roles.
        self._together: dict[tuple[Change, ...], set[str]] = {}
        self._dependents: dict[Change, set[tuple[Change, ...]]] = {}
        self._life = 0
        self.applied_revision = 0
        self.imports = ImportFilter()

    @property
    def capacity(self) -> int:
        """How many records fit."""
        return self._size

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key_id: str) -> Entry | None:
        """What is known of the key, or None where it must be loaded."""
        entry = self._entries.get(key_id)
        if entry is not None:
            entry.is_used = True
        else:
            entry = self._absent.get(key_id)
            if entry is None:
                return None
        observability.CACHE_HITS.count += 1
        return entry

    # Loads ----------------------------------------------------------------------------------------------------------

    def begin_load(self) -> int:
        """Which life of the cache a load begins in; to be asked before it is sent, and passed to `finish_load`."""
        return self._life

    def finish_load(self, life: int, key_id: str, loaded: Loaded) -> Entry:
        """Keep what was loaded, if that is safe; and return it as an entry either way.

        Raises the CannotDecide that was loaded in place of a record.
        """
        if isinstance(loaded.record, CannotDecide):
            raise loaded.record
        entry = Entry(loaded.record)
        if life == self._life and loaded.revision >= self.applied_revision:
            self._keep(key_id, entry)
        return entry

    def finish_forms(self, life: int, revision: int, forms: Iterable[tuple[Place, bytes]], is_last: bool) -> bool:
        """Add forms that were read to the filter; False where all of them must be read anew.

        revision: of the snapshot. is_last: whether it showed no further form.
        """
        if life != self._life:
            return False
        for place, digest in forms:
            self.imports.add(place, digest)
        if is_last and revision >= self.applied_revision:
            self.imports.is_current = True
        return True

    def _keep(self, key_id: str, entry: Entry) -> None:
        self._drop(key_id)
        if entry.record is None:
            self._absent[key_id] = entry
            if len(self._absent) > max(1, self._size // _ABSENT_SHARE):
                self._absent.popitem(last=False)
            return
        if len(self._entries) >= self._size:
            self._make_room()
            observability.EVICTIONS["size"].inc()
        if key_id == entry.record.identity.key_id:
            key_id = entry.record.identity.key_id  # one text where both are the same
        self._entries[key_id] = entry
        causes = _causes(key_id, entry.record)
        together = self._together.get(causes)
        if together is None:
            together = self._together[causes] = set()
            for change in causes:
                self._dependents.setdefault(change, set()).add(causes)
        together.add(key_id)

    def _make_room(self) -> None:
        for _ in range(_PASSED_OVER):
            key_id, entry = next(iter(self._entries.items()))
            if not entry.is_used:
                break
            entry.is_used = False
            self._entries.move_to_end(key_id)
        self._drop(next(iter(self._entries)))

    # Evictions ------------------------------------------------------------------------------------------------------

    def apply(self, revision: int, changes: Sequence[Change] | None) -> None:
        """Evict what changed up to the revision; everything where `changes` is None."""
        if changes is None:
            self.restart(revision)
            return
        before = len(self._entries)
        for change in changes:
            self._evict(change)
        observability.EVICTIONS["change"].inc(before - len(self._entries))
        self.applied_revision = revision

    def restart(self, revision: int) -> None:
        """Forget everything, loads under way as well, and go on from the revision, be it lower than before."""
        self._life += 1
        observability.EVICTIONS["restart"].inc(len(self._entries))
        self._entries.clear()
        self._absent.clear()
        self._together.clear()
        self._dependents.clear()
        self.imports.restart()
        self.applied_revision = revision

    def _evict(self, change: Change) -> None:
        if change.entity == "all":
            self._entries.clear()
            self._absent.clear()
            self._together.clear()
            self._dependents.clear()
            self.imports.note_change()
        elif change.entity == "key":
            self._drop(change.id)
            self._drop_dependents(change)
        elif change.entity == "import":
            # Whatever was not found may be found now.
            self._absent.clear()
            self.imports.note_change()
            self._drop_dependents(Change("key", change.id))
        else:
            self._drop_dependents(change)

    def _drop_dependents(self, change: Change) -> None:
        for causes in list(self._dependents.get(change, ())):
            for key_id in list(self._together[causes]):
                self._drop(key_id)

    def _drop(self, key_id: str) -> None:
        self._absent.pop(key_id, None)
        entry = self._entries.pop(key_id, None)
        if entry is None or entry.record is None:
            return
        causes = _causes(key_id, entry.record)
        together = self._together[causes]
        together.discard(key_id)
        if together:
            return
        del self._together[causes]
        for change in causes:
            dependents = self._dependents[change]
            dependents.discard(causes)
            if not dependents:
                del self._dependents[change]


def _causes(asked_for: str, record: Record) -> tuple[Change, ...]:
    """The changes, beside one of what it was asked for by, that the record must go with."""
    causes = [Change("tenant", record.identity.tenant_id)]
    if asked_for != record.identity.key_id:
        causes.append(Change("key", record.identity.key_id))
    if record.plan_id:
        causes.append(Change("plan", record.plan_id))
    causes.extend(Change("role", str(number)) for number in record.role_numbers)
    return tuple(causes)
