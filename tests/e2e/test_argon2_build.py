"""Argon2 of the compiled server: every build of it hashes as the wheel's does, and a server takes the best."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
from argon2 import Type
from argon2.low_level import hash_secret_raw

from supply.argon2 import LEVELS, LIBRARY, PACKAGE, is_of_use
from tests.support.server import ServerProcess

pytestmark = pytest.mark.skipif(
    "SERVER_PATH" not in os.environ or not is_of_use(), reason="it is of the compiled server on x86-64 with glibc"
)

SECRET, SALT = b"secret" * 6, b"salt" * 4
COSTS = [(1, 1_024, 1), (2, 19 * 1_024, 1), (3, 64, 2)]
"""Passes, KiB and lanes: what is generated, what is imported, and what another system may have made."""


@cache
def runnable() -> Mapping[str, Path]:
    """The build for each level that this processor has, by the word of the dynamic loader, the best last."""
    told = subprocess.run(["/lib64/ld-linux-x86-64.so.2", "--help"], capture_output=True, text=True, check=True).stdout
    package = Path(os.environ["SERVER_PATH"]) / PACKAGE
    return {
        level: package / place / LIBRARY
        for level, place in LEVELS.items()
        if not place or f"{level} (supported, searched)" in told
    }


@pytest.mark.parametrize("costs", COSTS, ids=str)
@pytest.mark.parametrize("level", LEVELS)
def test_every_build_hashes_as_the_wheel_does(level: str, costs: tuple[int, int, int]) -> None:
    if level not in runnable():
        pytest.skip(f"this processor does not have {level}")
    library = ctypes.CDLL(str(runnable()[level]))
    digest = ctypes.create_string_buffer(32)
    passes, memory, lanes = map(ctypes.c_uint32, costs)
    sized = [(part, ctypes.c_size_t(len(part))) for part in (SECRET, SALT)]
    arguments = [value for pair in sized for value in pair]
    code = library.argon2id_hash_raw(passes, memory, lanes, *arguments, digest, ctypes.c_size_t(32))
    assert code == 0
    assert digest.raw == hash_secret_raw(SECRET, SALT, *costs, 32, Type.ID)


def test_a_server_takes_the_build_for_its_processor(cli_server: ServerProcess) -> None:
    loaded = {
        Path(line.split()[-1])
        for line in Path(f"/proc/{cli_server.pid}/maps").read_text().splitlines()
        if LIBRARY in line
    }
    assert loaded == {list(runnable().values())[-1]}
