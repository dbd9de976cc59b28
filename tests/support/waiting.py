"""Waiting for what others do by themselves."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS = 15.0
"""What a busy machine may need for it."""


def wait_until(holds: Callable[[], bool], seconds: float = SECONDS, otherwise: str = "") -> float:
    """Return when it holds, with how long that took. Fails where that is longer than `seconds`.

    otherwise: what to say then.
    """
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, otherwise or f"not within {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - began
