"""What a client answered alone, until it is reported: so that the server's account of uses stays true."""

from __future__ import annotations

import time
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from latchgate.results import Verification
from latchgate.v1 import verify_service_pb2

_AT_ONCE: Final = 1_000  # what the server takes in one message
_KEYS: Final = 10_000
_ADDRESS_LENGTH: Final = 64


class _Use:
    __slots__ = ("allowed", "client_ip", "denied", "last")

    def __init__(self) -> None:
        self.allowed = 0
        self.denied: dict[str, int] = {}
        self.last = 0.0
        self.client_ip = ""


class Uses:
    """Uses by key, bounded."""

    __slots__ = ("_uses",)

    def __init__(self) -> None:
        self._uses: dict[str, _Use] = {}

    def note(self, key_id: str, verification: Verification, now: float, client_ip: str) -> bool:
        """Count a use. False where there is no room: then the server is asked, which counts by itself.

        now: on the monotonic clock.
        """
        use = self._uses.get(key_id)
        if use is None:
            if len(self._uses) >= _KEYS:
                return False
            use = self._uses[key_id] = _Use()
        if verification.allowed:
            use.allowed += 1
        else:
            use.denied[verification.reason] = use.denied.get(verification.reason, 0) + 1
        use.last = now
        use.client_ip = client_ip
        return True

    def take(self, now: float) -> list[verify_service_pb2.CachedUse]:
        """Remove as much as fits a message. now: on the monotonic clock."""
        taken: list[verify_service_pb2.CachedUse] = []
        while self._uses and len(taken) < _AT_ONCE:
            key_id, use = self._uses.popitem()
            last = time.time() - (now - use.last)
            taken.append(
                verify_service_pb2.CachedUse(
                    key_id=key_id,
                    allowed=use.allowed,
                    denied=use.denied,
                    last_use_time=Timestamp(seconds=int(last), nanos=int(last % 1 * 1e9)),
                    last_client_ip=use.client_ip[:_ADDRESS_LENGTH],
                )
            )
        return taken
