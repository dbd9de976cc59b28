"""PostgreSQL on a disk that is full: changes say so, verifications go on, and all is well once there is room again."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest

from latchgate.v1.decision_pb2 import DECISION_ALLOW
from tests.conformance.house import House
from tests.conformance.wire import refusal_of
from tests.consistency.torture.cluster import own_postgres
from tests.support.server import Admin, ServerProcess, Verify, environment, make_root_key, run_command

DISK = "192m"
CHANGES = 3_000
RECOVERY_SECONDS = 60.0


@pytest.fixture
def disk() -> Iterator[Path]:
    """A small file system of its own, in memory."""
    folder = Path(tempfile.mkdtemp(prefix="latchgate-"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=755", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        folder.rmdir()
        pytest.skip("needs to mount a small file system, which this user may not")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """No room is left while the context lasts."""
    filler = folder / "filler"
    with filler.open("wb") as file, suppress(OSError):
        while True:
            file.write(bytes(65_536))
            file.flush()
    try:
        yield
    finally:
        os.unlink(filler)  # noqa: PTH108 - says what happens to the disk


def test_changes_say_that_the_disk_is_full_and_verifications_go_on(disk: Path) -> None:
    with own_postgres(disk) as postgres:
        assert run_command("migrate", env=environment(postgres.url)).returncode == 0
        root_key = make_root_key(postgres.url)
        with ServerProcess(postgres.url, {"lease": "1s"}) as server:
            admin, verify = Admin(server.admin_address, root_key), Verify(server.verify_address)
            house = House(admin)
            tenant_id = house.tenant()
            key = house.key(tenant_id).key_string
            assert verify(key).decision == DECISION_ALLOW
            with filled(disk):
                refused = None
                for _ in range(CHANGES):
                    try:
                        house.key(tenant_id, description="x" * 2_000)
                    except grpc.RpcError as error:
                        refused = refusal_of(error)
                        break
                assert refused is not None, "there was room after all"
                assert refused.code is grpc.StatusCode.UNAVAILABLE
                assert "disk" in refused.message
                for _ in range(20):
                    assert verify(key).decision == DECISION_ALLOW
                    time.sleep(0.1)
            began = time.monotonic()
            while True:
                try:
                    house.key(tenant_id)
                    break
                except grpc.RpcError:
                    assert time.monotonic() - began < RECOVERY_SECONDS
                    time.sleep(0.1)
            assert verify(key).decision == DECISION_ALLOW
            assert not any("Traceback" in line for line in server.log)
            admin.close()
            verify.close()
