"""Finds the keys of other systems, without a database read for what nobody imported.

A credential that is none of ours may be found by several forms (core/imported.py). Each is looked for in memory first.
What is not there and the filter rules out does not exist. What passes the filter, or comes while there is no lease
under which the filter could be trusted, is looked up at a bounded rate. Only look-ups that find nothing count against
it, so that a restart with many imported keys in use is not slowed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator

from latchgate_server.core import bounds, key_format
from latchgate_server.core.errors import Overloaded
from latchgate_server.core.imported import key_id_problem
from latchgate_server.core.ports import Clock
from latchgate_server.core.throttle import Throttle
from latchgate_server.hashing import SecretHasher
from latchgate_server.verify.cache import Entry, RecordCache
from latchgate_server.verify.loader import LoadedEntry, RecordLoader

_REFRESHES = 3

Candidate = tuple[str, str]
"""A form by which a credential may be stored, and what is its secret then."""


class ImportedForms:
    """Looks forms up: in the cache, by the filter, in the database."""

    def __init__(self, cache: RecordCache, loader: RecordLoader, hasher: SecretHasher, clock: Clock) -> None:
        self._cache = cache
        self._loader = loader
        self._hasher = hasher
        self._clock = clock
        self._unknown = Throttle(1 / bounds.UNKNOWN_FORMS_PER_SECOND, bounds.UNKNOWN_FORMS_AT_ONCE)
        self._refreshing: asyncio.Task[None] | None = None

    @property
    def are_none(self) -> bool:
        """Whether there are no imported keys at all. Counts under a lease only, as `remember` does."""
        return self._cache.imports.is_current and self._cache.imports.is_empty

    def candidates(self, key_string: str) -> Iterator[Candidate]:
        """The forms to look for, in order; see core/imported.py for why in this one."""
        for form in self._hasher.forms(hashlib.sha256(key_string.encode()).digest()):
            yield form, key_string
        presented = key_format.parse(key_string)
        if presented is not None and presented.secret is not None and not key_id_problem(presented.key_id):
            yield presented.key_id, presented.secret

    def remember(self, form: str) -> Entry | None:
        """What memory says of a form: an entry, one of nobody where the filter rules the form out, or None."""
        entry = self._cache.get(form)
        if entry is not None:
            return entry
        imports = self._cache.imports
        if imports.is_current and not imports.may_hold(self._hasher.digest(form)):
            return Entry(None)
        return None

    async def refresh(self) -> None:
        """Have the filter read what it lacks, at most one reading at a time. Raises StoreUnavailable, Overloaded."""
        for _ in range(_REFRESHES):
            if self._cache.imports.is_current:
                return
            if self._refreshing is None:
                self._refreshing = asyncio.get_running_loop().create_task(self._loader.read_forms(self._hasher.digest))
                self._refreshing.add_done_callback(self._note_refreshed)
            # Whoever gives up must not take the others' answer away.
            await asyncio.shield(self._refreshing)

    def _note_refreshed(self, task: asyncio.Task[None]) -> None:
        self._refreshing = None
        if not task.cancelled():
            task.exception()  # nobody may be waiting any more; that is no leak worth a warning

    async def load(self, form: str) -> LoadedEntry:
        """What the database holds for a form, read after this call began.

        Raises StoreUnavailable, and Overloaded where too many forms were asked for that do not exist.
        """
        now = self._clock.monotonic()
        delay = self._unknown.delay(now)
        if delay > bounds.UNKNOWN_FORM_WAIT_SECONDS:
            raise Overloaded("too many unknown credentials are being looked up", retry_after=delay)
        self._unknown.take(now)
        if delay > 0:
            await self._clock.sleep(delay)
        loaded = await self._loader.load(form)
        if loaded.entry.record is not None:
            self._unknown.give_back()
        return loaded
