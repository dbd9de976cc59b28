"""`latchgate top`: what a deployment does at this moment, on a terminal."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.live import Live

from latchgate_server.cli.failures import USAGE, fail
from latchgate_server.cli.output import Format, Output, console
from latchgate_server.cli.parsing import duration_from
from latchgate_server.cli.remote import ADMIN_KEY, ADMIN_KEY_FILE, administration
from latchgate_server.cli.top_frame import Frame, HotKeys, frame
from latchgate_server.cli.top_keys import NO_KEY, HottestKeys
from latchgate_server.cli.top_metrics import Look, look
from latchgate_server.cli.top_view import View
from latchgate_server.system import SystemClock

METRICS_ADDRESS = "LATCHGATE_METRICS_ADDRESS"
_DEFAULT = "127.0.0.1:9464"
_ADDRESS = re.compile(r"[^/\s,]+:\d{1,5}")
_LAYOUTS_PER_SECOND = 4
_SHORTEST, _LONGEST = 0.5, 3_600.0
_UNSEEN_WIDTH = 120


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(top)


def top(
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metrics",
            metavar="HOST:PORT",
            help=f"Where a replica shows its metrics; repeatable. Without: {METRICS_ADDRESS}, or {_DEFAULT}.",
        ),
    ] = None,
    *,
    interval: Annotated[
        str, typer.Option("--interval", metavar="TIME", help="How long to look before each picture.")
    ] = "2s",
    once: Annotated[bool, typer.Option("--once", help="Print one picture and end.", show_default=False)] = False,
    output: Output = Format.TABLE,
) -> None:
    """Show what is going on, until Ctrl-C: decisions, latency, memory, leases, changes and the hottest keys.

    With --output json one picture is printed, and the command ends.
    """
    addresses = _addresses(metrics)
    pause = duration_from(interval, "--interval").ToMicroseconds() / 1e6
    if not _SHORTEST <= pause <= _LONGEST:
        fail("--interval: from 500ms to 1h is expected", USAGE)
    try:
        with _hottest() as hottest:
            is_single = once or output is Format.JSON
            pictures = _Pictures(addresses, pause, hottest, is_single)
            if is_single:
                _print(pictures.next(), output)
            else:
                _go_on(pictures)
    except KeyboardInterrupt:
        return


def _addresses(given: Sequence[str] | None) -> list[str]:
    named = list(given or re.split(r"[,\s]+", os.environ.get(METRICS_ADDRESS) or _DEFAULT))
    addresses = list(dict.fromkeys(address for address in named if address))
    for address in addresses:
        if not _ADDRESS.fullmatch(address):
            fail(f"{'--metrics' if given else METRICS_ADDRESS}: HOST:PORT is expected, not {address!r}", USAGE)
    return addresses


@contextmanager
def _hottest() -> Iterator[HottestKeys | None]:
    """Who tells of the hottest keys, where there is an administrator's key to ask with."""
    if not os.environ.get(ADMIN_KEY) and not os.environ.get(ADMIN_KEY_FILE):
        yield None
        return
    with administration() as admin:
        keys = HottestKeys(admin, SystemClock())
        try:
            yield keys
        finally:
            keys.end()


class _Pictures:
    """One picture after the other. The first look ends the command where no endpoint shows anything."""

    def __init__(self, addresses: Sequence[str], pause: float, hottest: HottestKeys | None, is_single: bool) -> None:
        self._addresses = addresses
        self._pause = pause
        self._hottest = hottest
        self._clock = SystemClock()
        self._before = self._look()
        if all(each.problem for each in self._before):
            fail("\n".join(_told(each) for each in self._before))
        if hottest is not None and is_single:
            hottest.latest()  # so that the picture tells how fast their counts grow

    def look_aside(self) -> None:
        """Look at keys beside the pictures, which need not wait for it then."""
        if self._hottest is not None:
            self._hottest.start()

    def next(self) -> Frame:
        """Wait for as long as a picture takes, and look again."""
        time.sleep(self._pause)
        before, self._before = self._before, self._look()
        return frame(before, self._before, HotKeys(remark=NO_KEY) if self._hottest is None else self._hottest.latest())

    def _look(self) -> list[Look]:
        return look(self._addresses, self._clock.monotonic)


def _told(failed: Look) -> str:
    return f"http://{failed.address}/metrics: {failed.problem}; is latchgate running? ({METRICS_ADDRESS} says where)"


def _go_on(pictures: _Pictures) -> None:
    """Keep a picture on the terminal true, or print one after the other where there is none."""
    if not sys.stdout.isatty():
        while True:
            _print(pictures.next(), Format.TABLE)
    pictures.look_aside()
    view = View(pictures.next())
    # Laid out again and again, so that it follows the size of the terminal.
    with Live(view, console=console(sys.stdout), screen=True, refresh_per_second=_LAYOUTS_PER_SECOND):
        while True:
            view.frame = pictures.next()


def _print(picture: Frame, output: Format) -> None:
    if output is Format.JSON:
        print(json.dumps(_plain(dataclasses.asdict(picture)), indent=2, sort_keys=True, ensure_ascii=False))
    else:
        console(sys.stdout, None if sys.stdout.isatty() else _UNSEEN_WIDTH).print(View(picture))
        sys.stdout.flush()


def _plain(value: Any) -> Any:
    """JSON has no infinity: what is beyond all buckets is null."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and math.isinf(value) else value
