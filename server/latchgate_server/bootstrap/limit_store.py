"""The store of rate limits that processes share, where one is configured."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from latchgate_server.config import Settings, SettingsProblem
from latchgate_server.system import SystemClock

if TYPE_CHECKING:
    from latchgate_server.storage.valkey_rates import ValkeyRates


def open_limit_store(settings: Settings) -> ValkeyRates | None:
    """The store, which connects when it is first asked; None where each process counts for itself.

    Raises SettingsProblem where its address makes no sense, or what speaks to it is not installed.
    """
    address = settings.shared_limit_store
    if address is None:
        return None
    if find_spec("valkey") is None:
        raise SettingsProblem("LATCHGATE_LIMIT_STORE needs: pip install 'latchgate-server[valkey]'")
    from latchgate_server.storage.valkey_rates import ValkeyRates  # noqa: PLC0415 - an optional extra

    try:
        return ValkeyRates(address, SystemClock(), settings.limit_store_timeout)
    except ValueError as problem:
        raise SettingsProblem(f"LATCHGATE_LIMIT_STORE: {problem}") from None


def check_limit_store(settings: Settings) -> None:
    """Read the store's address, before anything else is started. Raises SettingsProblem."""
    open_limit_store(settings)
