"""The hottest keys, as AdminService tells of them: among the keys used last, those with the most decisions this hour.

No metric names a key: a label for each would grow with every key that there is. So an administrator's key is needed,
with `latchgate.keys.list` and `latchgate.usage.get`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2
from latchgate_server.cli.refusals import Called, told
from latchgate_server.cli.remote import ADMIN_ADDRESS, Admin
from latchgate_server.cli.top_frame import HotKey, HotKeys
from latchgate_server.core.ports import Clock

Response = TypeVar("Response")

NO_KEY = "set LATCHGATE_ADMIN_KEY_FILE to an administrator's key to see them"
PAUSE_SECONDS = 10.0
_PAGES, _PAGE = 5, 200
_CANDIDATES = 20
_SHOWN = 10
_RECENT_SECONDS = 300
_HOUR = 3_600
_CALL_SECONDS = 5.0


class HottestKeys:
    """Looks at keys once in a while, in a thread of its own: the terminal does not wait for it."""

    def __init__(self, admin: Admin, clock: Clock) -> None:
        self._admin = admin
        self._clock = clock
        self._counted: dict[str, tuple[float, int]] = {}
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
        keys, is_whole = self._keys()
        since = self._clock.now() - _RECENT_SECONDS
        used = [key for key in keys if key.HasField("last_use") and key.last_use.time.ToSeconds() >= since]
        used.sort(key=lambda key: key.last_use.time.ToMicroseconds(), reverse=True)
        hot = sorted(map(self._counted_now, used[:_CANDIDATES]), key=_heat, reverse=True)
        remark = "" if hot else "no key was used within five minutes"
        if not is_whole:
            remark = f"{remark}; " * bool(remark) + f"among the first {len(keys):,} keys that are listed"
        return HotKeys(hot[:_SHOWN], remark)

    def _keys(self) -> tuple[list[key_pb2.Key], bool]:
        """Keys, and whether these are all."""
        found: list[key_pb2.Key] = []
        request = pb.ListKeysRequest(page_size=_PAGE, filter=pb.KeyFilter(states=[key_pb2.Key.STATE_ACTIVE]))
        for _ in range(_PAGES):
            page = self._call(self._admin.stub.ListKeys, request)
            found += page.keys
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return found, True
        return found, False

    def _counted_now(self, key: key_pb2.Key) -> HotKey:
        now = self._clock.now()
        hour = Timestamp(seconds=int(now) // _HOUR * _HOUR)
        request = pb.GetUsageRequest(key_id=key.key_id, start_time=hour, bucket_length=Duration(seconds=_HOUR))
        buckets = self._call(self._admin.stub.GetUsage, request).buckets
        count = sum(bucket.allowed + sum(bucket.denied.values()) for bucket in buckets)
        earlier = self._counted.get(key.key_id)
        self._counted[key.key_id] = (now, count)
        per_second = None
        if earlier is not None and count >= earlier[1] and now > earlier[0]:
            per_second = (count - earlier[1]) / (now - earlier[0])
        return HotKey(key.key_id, key.tenant_id, count, per_second)

    def _call(self, rpc: Callable[..., Response], request: Message) -> Response:
        metadata = (("authorization", f"Bearer {self._admin.key.key_string}"),)
        return rpc(request, metadata=metadata, timeout=_CALL_SECONDS)


def _heat(key: HotKey) -> tuple[float, int]:
    return (key.per_second or 0.0, key.this_hour)
