"""Answers to whoever waits for something that others asked for as well."""

from __future__ import annotations

import asyncio
from typing import Any


def fail(future: asyncio.Future[Any], error: BaseException) -> None:
    """Let those who wait meet the error, if they have no answer yet."""
    if not future.done():
        future.set_exception(error)
        future.exception()  # nobody may be waiting any more; that is no leak worth a warning
