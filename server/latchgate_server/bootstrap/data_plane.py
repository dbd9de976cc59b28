"""The data plane: what a verification needs, built from the bottom up."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from latchgate_server.admin.renewal import HashRenewal
from latchgate_server.bootstrap.database import USAGE_CONNECTIONS, Database
from latchgate_server.bootstrap.limit_store import open_limit_store
from latchgate_server.config import Settings
from latchgate_server.core.credential_sources import CredentialSources
from latchgate_server.core.ports import Clock
from latchgate_server.core.usage import KeepsNoAccount
from latchgate_server.hashing import SecretHasher
from latchgate_server.storage.feed_link import PostgresFeedLinks
from latchgate_server.storage.pool import create_pool
from latchgate_server.storage.usage_writer import PostgresUsageWriter
from latchgate_server.system import SystemClock, SystemEntropy
from latchgate_server.transport.callers import Callers
from latchgate_server.transport.ext_authz import EnvoyOptions
from latchgate_server.transport.request_ids import RequestIds
from latchgate_server.transport.watch_keys import KeyWatching
from latchgate_server.verify.access_log import AccessLog
from latchgate_server.verify.cache import RecordCache
from latchgate_server.verify.cached_uses import CachedUses
from latchgate_server.verify.feed import Feed
from latchgate_server.verify.limits import LimitCharger
from latchgate_server.verify.loader import RecordLoader
from latchgate_server.verify.noticing import Noticing
from latchgate_server.verify.outage import Outage
from latchgate_server.verify.quotas import Quotas
from latchgate_server.verify.rates import LocalRates
from latchgate_server.verify.shared_rates import SharedRates
from latchgate_server.verify.usage import UsageCollector
from latchgate_server.verify.verifier import Verifier
from latchgate_server.verify.watchers import Watchers


@dataclass(frozen=True, slots=True)
class DataPlane:
    """What decides, and what must run or be watched for it.

    quiet: decides as `verifier` does, from the same memory, and counts nothing in `usage`.
    """

    feed: Feed
    outage: Outage
    cache: RecordCache
    watchers: Watchers
    cached_uses: CachedUses
    quotas: Quotas
    limits: LimitCharger
    verifier: Verifier
    quiet: Verifier
    usage: UsageCollector
    hasher: SecretHasher

    def can_decide(self) -> bool:
        """Whether there is any state to decide on."""
        allows_stale = self.outage.allows_stale()
        return self.feed.has_lease() or not self.feed.is_lost or allows_stale


def build_data_plane(
    settings: Settings,
    stack: AsyncExitStack,
    database: Database,
    usage: UsageCollector,
    *,
    hasher: SecretHasher,
    renewal: HashRenewal,
) -> DataPlane:
    """Build it; `stack` takes it down again. Raises SettingsProblem."""
    clock = SystemClock()
    cache = RecordCache(settings.cache_size)
    loader = RecordLoader(database.loads, cache)
    stack.push_async_callback(loader.close)
    links = PostgresFeedLinks(settings.require_database_url(), settings.lease)
    watchers = Watchers(clock, settings.client_lease)
    feed = Feed(links, cache, watchers, clock, replica_id=SystemEntropy().bytes(16).hex(), lease=settings.lease)
    outage = Outage(feed, clock, settings.on_database_loss == "serve_cached", settings.max_staleness)
    quotas = Quotas(database.quotas, clock)
    limits = LimitCharger(
        LocalRates(clock), _shared_rates(settings, stack), quotas, clock, processes=lambda: feed.replicas
    )
    new_verifier = partial(
        Verifier,
        cache=cache,
        loader=loader,
        feed=feed,
        outage=outage,
        hasher=hasher,
        renewal=renewal,
        limits=limits,
        clock=clock,
    )
    return DataPlane(
        feed=feed,
        outage=outage,
        cache=cache,
        watchers=watchers,
        cached_uses=CachedUses(cache, loader, usage, clock),
        quotas=quotas,
        limits=limits,
        verifier=new_verifier(usage=usage),
        quiet=new_verifier(usage=KeepsNoAccount()),
        usage=usage,
        hasher=hasher,
    )


def _shared_rates(settings: Settings, stack: AsyncExitStack) -> SharedRates | None:
    """Raises SettingsProblem."""
    store = open_limit_store(settings)
    if store is None:
        return None
    stack.push_async_callback(store.close)
    return SharedRates(store, SystemClock(), settings.on_limit_store_loss == "deny")


async def open_usage(settings: Settings, stack: AsyncExitStack, database: Database) -> UsageCollector:
    """What collects uses, on a connection of its own."""
    url, lease, clock = settings.require_database_url(), settings.lease, SystemClock()
    pool = await create_pool(url, lease, USAGE_CONNECTIONS)
    stack.callback(pool.terminate)
    database.pools["usage"] = pool
    writer = PostgresUsageWriter(pool, SystemEntropy().bytes(16).hex(), patience=lease)
    observers = []
    if settings.access_log:
        access_log = AccessLog(settings.access_log, sys.stderr)
        stack.callback(access_log.close)
        observers.append(access_log)
    return UsageCollector(writer, clock, Noticing(clock), observers)


def callers_with_keys(data_plane: DataPlane, clock: Clock) -> Callers:
    """Who lets callers in by a key of theirs."""
    return Callers(data_plane.verifier, data_plane.quiet, data_plane.usage, clock)


def key_watching(data_plane: DataPlane, clock: Clock, request_ids: RequestIds) -> KeyWatching:
    """What serves clients with a cache of their own."""
    callers = callers_with_keys(data_plane, clock)
    return KeyWatching(data_plane.watchers, data_plane.feed, data_plane.cached_uses, callers, clock, request_ids)


def envoy_options(settings: Settings) -> EnvoyOptions:
    """What Envoy's requests are read and answered by."""
    return EnvoyOptions(
        sources=CredentialSources.parse(settings.credential_sources),
        denials=settings.http_denials(),
        client_ip_header=settings.client_ip_header,
    )
