"""Keeps health and gauges true while a process serves."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

from latchgate_server import observability
from latchgate_server.bootstrap.data_plane import DataPlane
from latchgate_server.core.ports import Clock
from latchgate_server.storage.pool import Pool
from latchgate_server.transport.server import Server

_LONGEST_PAUSE = 1.0


async def watch(server: Server, data_plane: DataPlane, pools: Mapping[str, Pool], clock: Clock, lease: float) -> None:
    """Turn the health of the data plane's services, and show how everything stands; until cancelled."""
    observability.BUILD.labels(version("latchgate-server")).set(1)
    observability.CACHE_CAPACITY.set(data_plane.cache.capacity)
    for name, pool in pools.items():
        observability.POOL_CAPACITY.labels(name).set(pool.get_max_size())
    while True:
        await server.set_deciding(data_plane.can_decide())
        _show(data_plane, clock)
        for name, pool in pools.items():
            idle = pool.get_idle_size()
            observability.POOL_CONNECTIONS.labels(name, "idle").set(idle)
            observability.POOL_CONNECTIONS.labels(name, "busy").set(pool.get_size() - idle)
        # Where several workers serve, nothing here is asked when the metrics are read.
        observability.hand_on()
        await clock.sleep(min(_LONGEST_PAUSE, lease / 3))


def _show(data_plane: DataPlane, clock: Clock) -> None:
    feed, cache = data_plane.feed, data_plane.cache
    observability.LEASE_VALID.set(feed.has_lease())
    observability.REPLICAS.set(feed.replicas)
    observability.APPLIED_REVISION.set(cache.applied_revision)
    observability.CACHED_RECORDS.set(len(cache))
    observability.WATCHERS.set(len(data_plane.watchers))
    observability.HASHES_WAITING.set(data_plane.hasher.waiting)
    observability.RATE_BUCKETS.set(data_plane.limits.rate_buckets)
    if feed.last_beat_at is not None:
        observability.BEAT_AGE.set(clock.monotonic() - feed.last_beat_at)
