"""The hottest keys, as AdminService tells of them: the busiest of this hour and the one before it, and their pace.

No metric names a key: a label for each would grow with every key that there is. So an administrator's key is needed,
with `latchgate.keys.list_busiest`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import grpc

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import audit_pb2
from latchgate_server.cli.refusals import Called, told
from latchgate_server.cli.remote import ADMIN_ADDRESS, Admin
from latchgate_server.cli.top_frame import HotKey, HotKeys
from latchgate_server.core.ports import Clock
from latchgate_server.core.usage import HOUR

NO_KEY = "set LATCHGATE_ADMIN_KEY_FILE to an administrator's key to see them"
PAUSE_SECONDS = 10.0
_ASKED = 100
_SHOWN = 10
_CALL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Look:
    """What was told at `moment`, in monotonic seconds, in the hour that began at `hour`, in Unix seconds."""

    moment: float
    hour: int
    keys: dict[str, audit_pb2.BusyKey]

    def rate_since(self, earlier: _Look | None, key: audit_pb2.BusyKey) -> float | None:
        """Uses a second of one of the keys; None where the earlier look does not tell."""
        before = None if earlier is None else earlier.keys.get(key.key_id)
        if earlier is None or before is None or self.moment <= earlier.moment:
            return None
        uses = key.uses_this_hour - before.uses_this_hour
        if self.hour == earlier.hour + HOUR:
            uses += key.uses_hour_before
        elif self.hour != earlier.hour:
            return None
        return max(uses, 0) / (self.moment - earlier.moment)


class HottestKeys:
    """Looks at keys once in a while, in a thread of its own: the terminal does not wait for it."""

    def __init__(self, admin: Admin, clock: Clock) -> None:
        self._admin = admin
        self._clock = clock
        self._earlier: _Look | None = None
        self._ending = threading.Event()
        self._runs = False
        self._latest = HotKeys(remark="looking …")

    def latest(self) -> HotKeys:
        """What the last look found; where no thread looks, a new one."""
        if not self._runs:
            self.look()
        return self._latest

    def start(self) -> None:
        """Look again and again, until `end`."""
        self._runs = True
        threading.Thread(target=self._run, name="hottest-keys", daemon=True).start()

    def end(self) -> None:
        """Look no more."""
        self._ending.set()

    def _run(self) -> None:
        while not self._ending.is_set():
            self.look()
            self._ending.wait(PAUSE_SECONDS)

    def look(self) -> None:
        """Look once."""
        try:
            self._latest = self._found()
        except grpc.RpcError as error:
            called = Called(self._admin.address, ADMIN_ADDRESS, _CALL_SECONDS, False, self._admin.key.source)
            self._latest = HotKeys(remark=told(error, called))
        except ValueError:
            return  # the channel was closed, as the command ends

    def _found(self) -> HotKeys:
        metadata = (("authorization", f"Bearer {self._admin.key.key_string}"),)
        request = pb.ListBusiestKeysRequest(page_size=_ASKED)
        response = self._admin.stub.ListBusiestKeys(request, metadata=metadata, timeout=_CALL_SECONDS)
        keys = {key.key_id: key for key in response.keys}
        look = _Look(self._clock.monotonic(), response.hour_start_time.seconds, keys)
        hot = [
            HotKey(key.key_id, key.tenant_id, key.uses_this_hour, look.rate_since(self._earlier, key))
            for key in response.keys
        ]
        self._earlier = look
        # Those that are used no more come last, and equals in the order that they were told in.
        hot.sort(key=lambda key: key.per_second or 0.0, reverse=True)
        return HotKeys(hot[:_SHOWN], "" if hot else "no key was used in this hour or the one before")
