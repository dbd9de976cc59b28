"""What a running process takes over without a restart: its certificates, and some of latchgate.toml, on SIGHUP."""

from __future__ import annotations

import asyncio

import structlog

from latchgate_server import log_events
from latchgate_server.config import Settings, SettingsProblem, load_settings
from latchgate_server.logs import set_log_level
from latchgate_server.transport.ext_authz import AuthorizationServicer
from latchgate_server.transport.tls import Tls

RELOADED = frozenset({"log_level", "denials", "denial_detail"})
"""The settings that are taken over. A process cannot see that its environment changed, so they must be in the file."""

_log = structlog.get_logger()


class Reload:
    """Takes over what can be; the rest is named in the log."""

    def __init__(self, settings: Settings, tls: Tls | None, authorization: AuthorizationServicer) -> None:
        self._settings = settings
        self._tls = tls
        self._authorization = authorization
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Have it done soon: what a signal handler calls."""
        self._asked.set()

    async def run(self) -> None:
        """Reload whenever it is asked for."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            if self._tls is not None:
                await self._tls.reload()
            self._take_over()

    def _take_over(self) -> None:
        before = self._settings
        try:
            now = load_settings()
        except (SettingsProblem, OSError) as problem:
            advice = "the settings before stay in force: correct them, and send SIGHUP again"
            _log.error(log_events.RELOAD_REFUSED, error=str(problem), advice=advice)
            return
        changed = {name for name in Settings.model_fields if getattr(now, name) != getattr(before, name)}
        taken = changed & RELOADED
        self._settings = before.model_copy(update={name: getattr(now, name) for name in taken})
        set_log_level(self._settings.log_level)
        if taken & {"denials", "denial_detail"}:
            self._authorization.tell_denials(self._settings.http_denials())
        _log.info(log_events.RELOADED, settings=sorted(taken))
        if rest := sorted(changed - RELOADED):
            _log.warning(log_events.RESTART_NEEDED, settings=rest, advice="they take effect with a restart")
