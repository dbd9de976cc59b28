"""Which forms of imported keys there can be: a filter in memory, so that what nobody imported costs no look-up.

It is a Bloom filter (Burton H. Bloom, 1970) that grows by further layers: it may take a form for imported that is not,
one in some thousands, but never misses one. It is given digests of forms under a key of this process, so that nobody
can tell beforehand which. Forms are only ever added. That of a key which was deleted stays until everything is
forgotten, and costs a look-up.

Its no may be trusted only while `is_current`, and under a valid lease like everything else in memory: a change to
imported keys takes that away in the step that applies the change, and what was loaded for it counts only if its
snapshot is not older than that. cache.py owns it and sees to both.
"""

from __future__ import annotations

from collections.abc import Iterator

_FIRST_LAYER = 4_096
_GROWTH = 4
_BITS_PER_FORM = 24
_PROBES = 8

Place = tuple[int, str]
"""Revision and form of the last form that was read."""

_BEGINNING: Place = (0, "")


class ImportFilter:
    """A growing set of forms that never forgets one. is_current: whether it has all that there are."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget everything."""
        self._layers: list[_Layer] = []
        self.place = _BEGINNING
        self.is_current = False

    def note_change(self) -> None:
        """Imported keys changed: what was read is not all any more."""
        self.is_current = False

    def add(self, place: Place, digest: bytes) -> None:
        """Add a form that was read; they come in the order of their places. digest: 16 bytes."""
        if not self._layers or self._layers[-1].is_full:
            capacity = self._layers[-1].capacity * _GROWTH if self._layers else _FIRST_LAYER
            self._layers.append(_Layer(capacity))
        self._layers[-1].add(*_numbers(digest))
        self.place = place

    @property
    def is_empty(self) -> bool:
        """Whether there is no form at all."""
        return not self._layers

    def may_hold(self, digest: bytes) -> bool:
        """False only for a form that was never added."""
        numbers = _numbers(digest)
        return any(layer.may_hold(*numbers) for layer in self._layers)


def _numbers(digest: bytes) -> tuple[int, int]:
    return int.from_bytes(digest[:8]), int.from_bytes(digest[8:]) | 1


class _Layer:
    """A Bloom filter for so many forms."""

    __slots__ = ("_bits", "_count", "_size", "capacity")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._count = 0
        self._size = capacity * _BITS_PER_FORM
        self._bits = bytearray(self._size // 8)

    @property
    def is_full(self) -> bool:
        return self._count >= self.capacity

    def add(self, first: int, step: int) -> None:
        for place in self._places(first, step):
            self._bits[place >> 3] |= 1 << (place & 7)
        self._count += 1

    def may_hold(self, first: int, step: int) -> bool:
        return all(self._bits[place >> 3] & 1 << (place & 7) for place in self._places(first, step))

    def _places(self, first: int, step: int) -> Iterator[int]:
        """Double hashing (Kirsch and Mitzenmacher, 2006)."""
        return ((first + probe * step) % self._size for probe in range(_PROBES))
