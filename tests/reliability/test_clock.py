"""The wall clock jumps by an hour, either way, under a running server: expiry follows it, and nothing else does.

libfaketime (Debian's `libfaketime`) lies to the process about the wall clock; the monotonic one it leaves alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2
from latchgate.v1.decision_pb2 import DECISION_ALLOW, DenialReason
from tests.conformance.house import House
from tests.support.postgres import Postgres
from tests.support.server import Admin, ServerProcess, Verify, make_root_key

HOUR = 3_600
SOON_SECONDS = 15.0
BURST = 5

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


class WallClock:
    """The wall clock of processes that are started with it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.jump(0)

    def jump(self, seconds: int) -> None:
        """Be so many seconds off from now on."""
        # At once: processes read it whenever they ask what time it is.
        written = self._file.with_suffix(".new")
        written.write_text(f"{seconds:+d}", encoding="ascii")
        written.replace(self._file)


@pytest.fixture
def wall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WallClock:
    if LIBRARY is None:
        pytest.skip("needs libfaketime: apt-get install libfaketime")
    wall = WallClock(tmp_path / "offset")
    for name, value in {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(tmp_path / "offset"),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }.items():
        monkeypatch.setenv(name, value)
    return wall


def soon(says: Callable[[], object], expected: object) -> None:
    """It comes to be, within a few beats."""
    began = time.monotonic()
    while (said := says()) != expected:
        assert time.monotonic() - began < SOON_SECONDS, said
        time.sleep(0.05)


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["an hour ahead", "an hour back"])
def test_a_jump_moves_expiry_and_nothing_else(
    postgres: Postgres, wall: WallClock, monkeypatch: pytest.MonkeyPatch, jump: int
) -> None:
    url = postgres.new_database()
    root_key = make_root_key(url)
    with ServerProcess(url, {"lease": "1s"}) as server:
        monkeypatch.undo()
        admin, verify = Admin(server.admin_address, root_key), Verify(server.verify_address)
        house = House(admin)
        tenant_id = house.tenant()

        def key(**fields: object) -> pb.CreateKeyResponse:
            return house.key(tenant_id, **fields)

        lasting = key()
        expiring = key(expire_time=_in(timedelta(minutes=30)))
        rate = key_pb2.RateLimit(limit=BURST, period=Duration(seconds=2 * HOUR))
        limited = key(limits=[key_pb2.Limit(name="calls", rate_limit=rate)])
        for _ in range(BURST):
            assert verify(limited.key_string).decision == DECISION_ALLOW
        assert verify(limited.key_string).denial_reason == DenialReason.DENIAL_REASON_RATE_LIMITED
        assert verify(expiring.key_string).decision == DECISION_ALLOW

        wall.jump(jump)

        after = DenialReason.DENIAL_REASON_API_KEY_EXPIRED if jump > 0 else DenialReason.DENIAL_REASON_UNSPECIFIED
        soon(lambda: verify(expiring.key_string).denial_reason, after)
        began = time.monotonic()
        while time.monotonic() - began < 3:  # three leases
            assert verify(lasting.key_string).decision == DECISION_ALLOW
            assert verify(limited.key_string).denial_reason == DenialReason.DENIAL_REASON_RATE_LIMITED
            time.sleep(0.02)
        began = time.monotonic()
        admin.DisableKey(pb.DisableKeyRequest(key_id=lasting.key.key_id))
        assert time.monotonic() - began < SOON_SECONDS, "a change waits for leases, which know nothing of the wall"
        assert verify(lasting.key_string).denial_reason == DenialReason.DENIAL_REASON_API_KEY_DISABLED

        wall.jump(0)

        soon(lambda: verify(expiring.key_string).decision, DECISION_ALLOW)
        assert verify(limited.key_string).denial_reason == DenialReason.DENIAL_REASON_RATE_LIMITED
        admin.close()
        verify.close()


def _in(time_from_now: timedelta) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(datetime.now(UTC) + time_from_now)
    return stamp
