"""A database with a million keys, filled by SQL: who has how many, how old they are and what they hold is uneven."""

from __future__ import annotations

from collections.abc import Callable

import asyncpg

_SECONDS = 3_600.0
_STRETCH = 50_000

# Keys 1 to $2, the oldest first, in the tenants t0 (a third of all keys), t1 (a tenth) and further ones of ever fewer.
_TENANTS = """
INSERT INTO tenants (tenant_id, display_name, limits, tags, plan_id)
SELECT 't' || n, 'Tenant ' || n, '[]', '{}', 'p' || n % 1000 FROM generate_series(0, $1::integer - 1) AS n
"""
_PLANS = """
INSERT INTO plans (plan_id, display_name, capabilities, key_limits, tenant_limits, max_keys)
SELECT 'p' || n, 'Plan ' || n, '{exports}', '[]', '[]', 0 FROM generate_series(0, 999) AS n
"""
# `reader` in every tenant, `everyone` and a thousand others for all tenants, and ten of its own for t0.
_ROLES = """
INSERT INTO roles (role_id, tenant_id, display_name, description, permissions, claims, allow_act_as)
SELECT role_id, tenant_id, '', '', '{orders.read}', '{}', false FROM (
    SELECT 'reader' AS role_id, 't' || n AS tenant_id FROM generate_series(0, $1::integer - 1) AS n
    UNION ALL SELECT 'everyone', NULL
    UNION ALL SELECT 'legacy', NULL
    UNION ALL SELECT 'rare', NULL
    UNION ALL SELECT 'shared-' || n, NULL FROM generate_series(1, 1000) AS n
    UNION ALL SELECT 'own-' || n, 't0' FROM generate_series(1, 10) AS n
) AS made
"""
# What is old is told apart by its age alone, so that it stands at the far end of every list: the oldest twentieth has
# the environment, tag, role, owner and word `legacy`, the oldest half has expired. One key has what is `rare`.
_KEYS = """
INSERT INTO keys (key_id, tenant_id, display_name, description, owner, default_user, permissions, claims, environment,
                  tags, ip_allowlist_enabled, ip_allowlist, resources, expire_time, rotate_by_time, limits, state,
                  create_time, created_by, lineage_id, update_time, revision)
SELECT CASE WHEN oldest THEN 'old_' WHEN n % 10 = 0 THEN 'acme_live_' ELSE 'lg_' END || substr(md5(n::text), 1, 22),
       tenant_id,
       CASE WHEN oldest THEN 'Legacy import ' ELSE (ARRAY['Order bot', 'Staging CRM sync', 'Nightly export',
            'Monitoring dashboard', 'HR integration', 'Azure AD sync', 'Billing'])[1 + n % 7] || ' ' END || n % 5000
            || CASE WHEN n = total / 3 THEN ' Unicorn' ELSE '' END,
       CASE WHEN n % 4 = 0 THEN 'made for ticket OPS-' || n ELSE '' END,
       CASE WHEN n = total / 3 THEN 'rare' WHEN oldest THEN 'legacy' WHEN n % 3 = 0 THEN 'portal'
            ELSE 'user-' || (n * 7919::bigint) % (total / 20 + 1) END,
       '', '{}', '{}',
       CASE WHEN n = total / 3 THEN 'rare' WHEN oldest THEN 'legacy' WHEN n % 10 < 7 THEN 'production'
            WHEN n % 10 < 9 THEN 'staging' ELSE 'development' END,
       jsonb_build_object('team', 'team-' || n % 300, 'all', 'yes')
           || CASE WHEN oldest THEN '{"batch": "legacy"}'::jsonb ELSE '{}' END
           || CASE WHEN n = total / 3 THEN '{"batch": "rare"}'::jsonb ELSE '{}' END,
       false, '{}', '{}',
       CASE WHEN n % 5 = 0 THEN NULL
            ELSE timestamptz '2030-01-01' + make_interval(mins => ((n - total / 2) * 1e6 / total)::integer) END,
       CASE WHEN n % 2 = 0
            THEN timestamptz '2030-01-01' + make_interval(mins => ((n - total / 2) * 1e6 / total)::integer) END,
       '[]',
       CASE WHEN n % 50 = 0 AND n < total / 10 THEN 'DISABLED' WHEN n < total / 5 THEN 'REVOKED' ELSE 'ACTIVE' END,
       timestamptz '2028-01-01' + make_interval(mins => (n * 1e6 / total)::integer), 'system',
       'lg_' || substr(md5(n::text), 1, 22), timestamptz '2028-01-01', 1
FROM (
    SELECT n, $3::integer AS total, n <= $3 / 20 AS oldest,
           't' || CASE WHEN n % 3 = 0 THEN 0 WHEN n % 10 = 1 THEN 1
                       ELSE 2 + floor(($4 - 2) * power((n * 7919.0 % 10007) / 10007, 3))::integer END AS tenant_id
    FROM generate_series($1::integer, $2::integer) AS n
) AS made
"""
_KEY_ROLES = """
INSERT INTO key_roles (key_id, position, role_number, role_id, key_number, tenant_id)
SELECT k.key_id, given.position, r.number, r.role_id, k.number, k.tenant_id
FROM keys AS k
CROSS JOIN LATERAL (VALUES
    (1, CASE WHEN k.number % 3 > 0 THEN 'reader' END, k.tenant_id),
    (2, CASE WHEN k.number % 10 > 0 THEN 'everyone' END, ''),
    (3, CASE WHEN k.number <= $3::integer / 20 THEN 'legacy' WHEN k.number = $3 / 3 THEN 'rare'
             WHEN k.number % 4 = 0 THEN 'shared-' || 1 + k.number % 1000 END, '')
) AS given (position, role_id, tenant_id)
JOIN roles AS r ON r.role_id = given.role_id AND coalesce(r.tenant_id, '') = given.tenant_id
WHERE k.number BETWEEN $1 AND $2
"""
# Of three keys, two were used: the oldest twentieth for the last time long ago, the others between 2031 and 2033.
_LAST_USES = """
UPDATE key_last_uses AS u SET used = true, time = at, hour = date_trunc('hour', at) FROM (
    SELECT number, CASE WHEN number <= $3::integer / 20 THEN timestamptz '2030-01-01' ELSE timestamptz '2031-01-01' END
                   + make_interval(mins => (number * 7919::bigint % 1000000)::integer) AS at
    FROM keys WHERE number BETWEEN $1 AND $2 AND number % 3 > 0
) AS used WHERE u.key_number = used.number
"""
# As if all of them had been used in one hour or the one before: few of them much, most of them about as often.
BUSY_HOUR = 543_210
_BUSY_HOURS = """
UPDATE key_last_uses AS u
SET busy_hour = $3::integer - number % 2, busy_uses = uses, busy_before = uses / 2,
    busy_step = floor(8 * ln(uses * 1.5))
FROM (
    SELECT number, 2 * (500 + 50000000 / (1 + number * 7919::bigint % 1000000)) AS uses
    FROM keys WHERE number BETWEEN $1 AND $2 AND number % 3 > 0
) AS used WHERE u.key_number = used.number
"""
_AUDIT_EVENTS = """
INSERT INTO audit_events (sequence, time, tenant_id, actor, actor_ip, method, target_type, target_id, before, after,
                          reason, revision, pepper_id, hash)
SELECT n, timestamptz '2028-01-01' + make_interval(secs => n), CASE WHEN n % 3 = 0 THEN 't0' ELSE 't' || n % 3000 END,
       CASE WHEN n <= $1 / 20 THEN 'legacy' WHEN n % 2 = 0 THEN 'portal' ELSE 'admin-' || n % 1000 END, '192.0.2.1',
       'DisableKey', 'key', 'key-' || n / 5, '{}', '{}', '', n, 'x', ''
FROM generate_series(1, $1::integer) AS n
"""
# What tells replicas of changes and checks each row would take most of the time; what lists read is kept as ever.
_ALONE = """
SET session_replication_role TO replica;
ALTER TABLE keys DISABLE TRIGGER USER;
ALTER TABLE keys ENABLE ALWAYS TRIGGER latchgate_list_new;
ALTER TABLE keys ENABLE ALWAYS TRIGGER latchgate_list_unused;
ALTER TABLE key_roles DISABLE TRIGGER USER;
"""
_TOGETHER = """
SELECT format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', tgrelid::regclass, tgname) FROM pg_trigger
WHERE tgrelid IN ('keys'::regclass, 'key_roles'::regclass) AND NOT tgisinternal
"""
# Indexes are made faster than they are kept up to date.
_INDEXES = """
SELECT i.indexrelid::regclass::text AS name, pg_get_indexdef(i.indexrelid) AS definition FROM pg_index AS i
WHERE i.indrelid IN ('keys'::regclass, 'key_roles'::regclass, 'key_texts'::regclass) AND NOT i.indisunique
"""


async def fill(url: str, keys: int, told: Callable[[str], None]) -> None:
    """Fill a migrated database with so many keys, as many audit events, and a tenant for every 200 keys.

    told: is given a line before each slow step.
    """
    connection = await asyncpg.connect(url, command_timeout=_SECONDS)
    tenants = max(keys // 200, 20)
    try:
        await connection.execute("SET synchronous_commit TO off; SET maintenance_work_mem TO '512MB'")
        await connection.execute(_PLANS)
        await connection.execute(_TENANTS, tenants)
        await connection.execute(_ROLES, tenants)
        indexes = await connection.fetch(_INDEXES)
        for index in indexes:
            await connection.execute(f"DROP INDEX {index['name']}")
        await connection.execute(_ALONE)
        for first in range(1, keys + 1, _STRETCH):
            last = min(first + _STRETCH - 1, keys)
            told(f"keys {first:,} to {last:,} of {keys:,}")
            await connection.execute(_KEYS, first, last, keys, tenants)
            await connection.execute(_KEY_ROLES, first, last, keys)
            await connection.execute(_LAST_USES, first, last, keys)
            await connection.execute(_BUSY_HOURS, first, last, BUSY_HOUR)
        for (statement,) in await connection.fetch(_TOGETHER):
            await connection.execute(statement)
        for index in indexes:
            told(f"index {index['name']}")
            await connection.execute(index["definition"])
        told(f"{keys:,} audit events")
        await connection.execute(_AUDIT_EVENTS, keys)
        told("vacuum and statistics")
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()
