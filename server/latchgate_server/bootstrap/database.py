"""The connections of a process to its database, and what it reads and writes over them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from latchgate_server.config import Settings
from latchgate_server.storage.migrate import check_schema
from latchgate_server.storage.pool import Pool, create_pool
from latchgate_server.storage.quota_ledger import PostgresQuotaLedger
from latchgate_server.storage.reader import PostgresReader
from latchgate_server.storage.replica_table import PostgresReplicaTable
from latchgate_server.storage.store import PostgresStore
from latchgate_server.storage.usage_reader import PostgresUsageReader
from latchgate_server.verify.loader import QUERIES_AT_ONCE

CONTROL_CONNECTIONS = 10
LOAD_CONNECTIONS = QUERIES_AT_ONCE + 3  # the rest lends quotas, takes them back, and reads the forms of imported keys
USAGE_CONNECTIONS = 1
CONNECTIONS = CONTROL_CONNECTIONS + LOAD_CONNECTIONS + USAGE_CONNECTIONS + 2
"""How many connections to the database a process may open: those, the feed's, and one that hears acknowledgements."""


@dataclass(frozen=True, slots=True)
class Database:
    """store: for administrators. loads, quotas: for verifications, on connections that no administrator can exhaust.

    usage: what administrators read of it. pools: all connections that are lent, by a name for operators.
    """

    store: PostgresStore
    loads: PostgresReader
    quotas: PostgresQuotaLedger
    replicas: PostgresReplicaTable
    usage: PostgresUsageReader
    pools: dict[str, Pool] = field(default_factory=dict)


async def open_database(settings: Settings, stack: AsyncExitStack) -> Database:
    """Connect, and check the schema. Raises SettingsProblem, SchemaProblem, StoreUnavailable."""
    url, lease = settings.require_database_url(), settings.lease
    control = await create_pool(url, lease, CONTROL_CONNECTIONS)
    stack.callback(control.terminate)
    await check_schema(control)
    loads = await create_pool(url, lease, LOAD_CONNECTIONS)
    stack.callback(loads.terminate)
    replicas = PostgresReplicaTable(control, url, lease)
    stack.callback(replicas.close)
    return Database(
        PostgresStore(control, patience=lease * 0.5),
        PostgresReader(loads, patience=lease),
        PostgresQuotaLedger(loads),
        replicas,
        PostgresUsageReader(control, patience=lease),
        {"control": control, "loads": loads},
    )
