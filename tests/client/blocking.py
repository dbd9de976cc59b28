"""AsyncAdminClient, called as AdminClient is, so that one test shows what holds for both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from latchgate import AdminClient, AsyncAdminClient
from latchgate.admin import AsyncListed


class _Blocking:
    def __init__(self, runner: asyncio.Runner, asynchronous: Any) -> None:
        self._runner, self._asynchronous = runner, asynchronous

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            made = getattr(self._asynchronous, name)(*arguments, **named)
            if asyncio.iscoroutine(made):
                return self._runner.run(made)
            return _Blocking(self._runner, made)

        return call

    def __iter__(self) -> Iterator[Any]:
        async def read() -> list[Any]:
            assert isinstance(self._asynchronous, AsyncListed)
            return [entry async for entry in self._asynchronous]

        return iter(self._runner.run(read()))

    def __repr__(self) -> str:
        return repr(self._asynchronous)


@contextmanager
def open_admin(kind: str, address: str, key: str, **settings: Any) -> Iterator[AdminClient]:
    """A client of that kind, whose calls block."""
    if kind == "AdminClient":
        with AdminClient(address, key, **settings) as client:
            yield client
        return
    with asyncio.Runner() as runner:

        async def make() -> AsyncAdminClient:
            return AsyncAdminClient(address, key, **settings)

        made = runner.run(make())
        yield cast(AdminClient, _Blocking(runner, made))
        runner.run(made.close())
