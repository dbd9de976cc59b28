"""How often wrong secrets may be tried against an imported key: a few times, then at a slow rate, from each address.

Its secret may be weak, and each try costs an Argon2. Tries are counted per key *and* address, so that whoever guesses
slows down nobody but those who share the address; and a secret that this process has seen proven is never counted.
"""

from __future__ import annotations

from collections import OrderedDict

from latchgate_server.core import bounds
from latchgate_server.core.addresses import parse_address
from latchgate_server.core.errors import Overloaded
from latchgate_server.core.ports import Clock
from latchgate_server.core.throttle import Throttle

_HOST_BITS_V6 = 64  # whoever has one IPv6 address has a network of them
_INTERVAL = 60 / bounds.WRONG_TRIES_PER_MINUTE

_Place = tuple[str, tuple[int, int] | None]


class WrongTries:
    """Counts tries before they are made, and forgets those that were right."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tries: OrderedDict[_Place, Throttle] = OrderedDict()

    def begin(self, key_id: str, client_ip: str) -> None:
        """Count a try. Raises Overloaded where there were too many."""
        place = _place(key_id, client_ip)
        now = self._clock.monotonic()
        throttle = self._tries.get(place)
        if throttle is None:
            throttle = self._tries[place] = Throttle(_INTERVAL, bounds.WRONG_TRIES_AT_ONCE)
            if len(self._tries) > bounds.WRONG_TRIES_REMEMBERED:
                self._tries.popitem(last=False)
        else:
            self._tries.move_to_end(place)
        delay = throttle.delay(now)
        if delay > 0:
            raise Overloaded("too many secrets were tried for this key from this address", retry_after=delay)
        throttle.take(now)

    def forgive(self, key_id: str, client_ip: str) -> None:
        """Forget a try: it was right, or did not come to be made."""
        throttle = self._tries.get(_place(key_id, client_ip))
        if throttle is not None:
            throttle.give_back()


def _place(key_id: str, client_ip: str) -> _Place:
    address = parse_address(client_ip)
    if address is not None and address[0] == 6:
        address = (6, address[1] >> _HOST_BITS_V6)
    return key_id, address
