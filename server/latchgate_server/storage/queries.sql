-- Every statement that Latchgate runs: its name, what it returns, how many rows. Columns are listed, never *, and
-- lists that several statements share stand once, as `-- columns:`. Loaded by queries.py.
--
-- Of each `-- part:` lists.py makes the statements of ListKeys and ListAuditEvents, each with only the conditions that its
-- filter needs: one that is always true would keep the planner from the index that serves. What it fills in stands in
-- double braces.

-- columns: tenant
tenant_id, display_name, enabled, coalesce(plan_id, '') AS plan_id, limits, tags, create_time, update_time,
revision AS etag

-- columns: plan
plan_id, display_name, capabilities, key_limits, tenant_limits, max_keys, create_time, update_time, revision AS etag

-- columns: role
number, role_id, coalesce(tenant_id, '') AS tenant_id, display_name, description, permissions, claims, allow_act_as,
create_time, update_time, revision AS etag

-- columns: key
k.key_id, k.number, k.tenant_id, k.display_name, k.description, k.owner, k.default_user, k.permissions, k.claims,
k.environment, k.tags, k.ip_allowlist_enabled, k.ip_allowlist, k.resources, k.expire_time, k.expired, k.rotate_by_time,
k.limits, k.state, k.create_time, k.created_by, k.update_time, k.revoke_time, k.revocation_reason,
k.lineage_id, k.predecessor_key_id, k.successor_key_id, k.revision AS etag

-- columns: last_use
CASE WHEN l.used THEN l.time END AS last_use_time, l.client_ip AS last_use_ip, l.user_name AS last_use_user, l.user_agent AS last_use_agent

-- columns: record
{key}, s.profile, s.pepper_id, s.phc, s.tag,
       t.enabled AS tenant_enabled, coalesce(t.plan_id, '') AS plan_id, t.limits AS tenant_limits,
       t.create_time AS tenant_create_time,
       p.capabilities, p.key_limits AS plan_key_limits, p.tenant_limits AS plan_tenant_limits,
       held.role_ids, held.roles, resets.resets

-- columns: record_source
LEFT JOIN imported_forms AS f ON f.form = wanted.id
LEFT JOIN (keys AS k JOIN key_secrets AS s ON s.key_id = k.key_id JOIN tenants AS t ON t.tenant_id = k.tenant_id)
    ON k.key_id = coalesce(f.key_id, wanted.id)
LEFT JOIN plans AS p ON p.plan_id = t.plan_id
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(r.role_id ORDER BY kr.position), '{{}}') AS role_ids,
           coalesce(jsonb_agg(jsonb_build_object(
               'number', r.number, 'role_id', r.role_id, 'permissions', r.permissions, 'claims', r.claims,
               'allow_act_as', r.allow_act_as) ORDER BY kr.position), '[]') AS roles
    FROM key_roles AS kr JOIN roles AS r ON r.number = kr.role_number
    WHERE kr.key_id = k.key_id
) AS held
CROSS JOIN LATERAL (
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'holder', l.holder, 'name', l.name, 'revision', l.revision, 'spent', l.spent,
        'time', extract(epoch FROM l.update_time))), '[]') AS resets
    FROM limit_resets AS l
    WHERE (l.holder, l.holder_id) IN (('KEY', k.lineage_id), ('TENANT', k.tenant_id))
) AS resets

-- columns: busy_step
floor(8 * ln(busy_uses + busy_before))

-- columns: busy_key
k.key_id, k.tenant_id, k.display_name, b.this_hour, b.hour_before

-- columns: busy_key_source
-- Key by key, until there are enough: OFFSET keeps the planner from joining all of them first.
CROSS JOIN LATERAL (SELECT key_id, tenant_id, display_name FROM keys WHERE number = b.key_number OFFSET 0) AS k
ORDER BY b.uses DESC, b.key_number LIMIT $2

-- columns: audit_event
sequence, time, tenant_id, actor, actor_ip, method, target_type, target_id, before, after, reason, revision, pepper_id,
hash

-- part: list_keys
-- A page of keys, each with the time that the list is in the order of, if any.
SELECT page.time AS page_time, {key}, {last_use},
       ARRAY(SELECT r.role_id FROM key_roles AS kr JOIN roles AS r ON r.number = kr.role_number
             WHERE kr.key_id = k.key_id ORDER BY kr.position) AS role_ids
FROM ({{page}}) AS page JOIN keys AS k ON k.number = page.number
LEFT JOIN key_last_uses AS l ON l.key_number = k.number
ORDER BY page.time DESC, page.number DESC

-- part: count_keys
SELECT count(*) AS keys FROM ({{page}}) AS page

-- part: page_of_numbers
-- The page out of several lists, each in the order of the page.
SELECT number, time FROM ({{lists}}) AS lists ORDER BY time DESC, number DESC LIMIT {{limit}}

-- part: list_of_numbers
SELECT {{number}} AS number, {{time}} AS time FROM {{tables}} WHERE {{conditions}} ORDER BY {{order}} LIMIT {{limit}}

-- part: list_of_numbers_by_text
-- From chunk to chunk (see latchgate_pieces), the newest first, until there are enough.
WITH RECURSIVE walk (chunk, numbers, found, in_text, at_start) AS (
    SELECT ((coalesce({{before}}::bigint, (SELECT max(number) + 1 FROM key_texts)) - 1) >> 13) + 1,
           '{{{{}}}}'::bigint[], 0::bigint, sought.in_text, sought.at_start
    FROM latchgate_pieces_sought({{search}}) AS sought WHERE {{unless}}
    UNION ALL
    SELECT walk.chunk - 1, page.numbers, walk.found + cardinality(page.numbers), walk.in_text, walk.at_start
    FROM walk
    CROSS JOIN LATERAL (
        SELECT array_agg((walk.chunk - 1) || piece) AS in_text, ARRAY[(walk.chunk - 1) || walk.at_start] AS at_start
        FROM unnest(walk.in_text) AS piece
    ) AS sought
    CROSS JOIN LATERAL (
        SELECT ARRAY(
            SELECT kt.number
            FROM (
                SELECT number, tenant_id FROM key_texts AS kt
                WHERE (latchgate_pieces(kt.number, kt.key_id, kt.text) @> sought.in_text
                       OR latchgate_pieces(kt.number, kt.key_id, kt.text) @> sought.at_start)
                  AND (strpos(kt.text, lower({{search}})) > 0 OR starts_with(kt.key_id, {{search}}))
                OFFSET 0  -- so that no other index is tried first
            ) AS kt {{joins}}
            WHERE {{conditions}}
            ORDER BY kt.number DESC LIMIT {{limit}}
        ) AS numbers
    ) AS page
    WHERE walk.chunk > 0 AND walk.found < {{limit}}
)
SELECT unnest(numbers) AS number, NULL::timestamptz AS time FROM walk

-- part: list_of_numbers_by_text_of_tenant
-- In a tenant of few keys, one by one.
SELECT kt.number, NULL::timestamptz AS time FROM {{tables}}
WHERE (strpos(kt.text, lower({{search}})) > 0 OR starts_with(kt.key_id, {{search}})) AND {{conditions}}
ORDER BY kt.number DESC LIMIT {{limit}}

-- part: tenant_has_few_keys
(SELECT count(*) <= 5000 FROM (SELECT FROM key_texts WHERE tenant_id = {{tenant_id}} LIMIT 5001) AS counted)

-- part: with_role
{{alias}}.role_id = {{role_id}}

-- part: with_role_of_tenant
-- A tenant sees one role of that id.
{{alias}}.role_number = (
    SELECT number FROM roles
    WHERE role_id = {{role_id}} AND (tenant_id IS NULL OR tenant_id = {{tenant_id}})
    ORDER BY tenant_id LIMIT 1
)

-- part: with_tag
{{alias}}.name = {{name}} AND {{alias}}.value = {{value}}

-- part: of_tenant
{{of}}.tenant_id = {{tenant_id}}

-- part: of_owner
k.owner = {{owner}} AND k.owner <> ''

-- part: of_environment
k.environment = {{environment}} AND k.environment <> ''

-- part: in_state
k.state = {{state}}

-- part: time_before
{{column}} < {{time}}

-- part: unused_since
u.hour <= {{time}} AND u.time < {{time}}

-- part: number_before
{{column}} < {{number}}

-- part: time_and_number_before
({{column}}, {{number_column}}) < ({{time}}, {{number}})

-- part: list_audit_events
SELECT {audit_event} FROM audit_events WHERE {{conditions}} ORDER BY time DESC, sequence DESC LIMIT {{limit}}

-- part: audit_event_matches
{{column}} = {{value}}

-- part: audit_event_not_before
time >= {{time}}

-- name: deployment
-- The deployment's own constants. One row.
SELECT key_id_tag_key FROM deployment

-- name: is_sealed_by_others
-- Whether secrets were hashed under peppers, and none of them under one of these ids. Looks until it finds one. One row.
SELECT EXISTS (SELECT FROM key_secrets AS s WHERE s.pepper_id <> '')
   AND NOT EXISTS (SELECT FROM key_secrets AS s WHERE s.pepper_id = ANY ($1::text[]))

-- name: begin_change
-- Takes the revision clock; the first statement of every mutation. One row.
SELECT latchgate_begin_change()

-- name: change_begun
-- What a mutation that holds the clock begins with: its place in history, the end of the audit chain, and two keys as
-- load_records and get_key give them: $1, who asks, and $2, which is to be changed; '' for none. Two rows, in this order.
SELECT wanted.id, current_setting('latchgate.revision')::bigint AS snapshot_revision,
       latchgate_timeline() AS timeline, clock_timestamp() AS time,
       coalesce(newest.sequence, 0) AS audit_sequence, coalesce(newest.hash, '') AS audit_hash,
       {record}, {last_use}
FROM (VALUES (1, $1::text), (2, $2::text)) AS wanted (place, id)
LEFT JOIN (SELECT sequence, hash FROM audit_events ORDER BY sequence DESC LIMIT 1) AS newest ON true
{record_source}
LEFT JOIN key_last_uses AS l ON l.key_number = k.number
ORDER BY wanted.place

-- name: current_revision
-- The revision of this statement's snapshot. One row.
SELECT revision FROM revision_clock

-- name: beat
-- Renews the row of the replica $1. Its commit comes before the read of changes.
INSERT INTO replicas (replica_id, applied_revision, lease_seconds) VALUES ($1, $2, $3)
ON CONFLICT (replica_id) DO UPDATE
SET applied_revision = excluded.applied_revision, lease_seconds = excluded.lease_seconds, beat = excluded.beat

-- name: read_changes
-- The changes after the revision $1, all of one snapshot, with its revision. At least one row, entity NULL where nothing
-- changed; at most $2.
SELECT clock.revision, pruned.revision AS pruned_revision, (SELECT count(*) FROM replicas) AS replicas, c.entity, c.id
FROM revision_clock AS clock CROSS JOIN changes_pruned AS pruned
LEFT JOIN LATERAL (SELECT entity, id FROM changes WHERE revision > $1 ORDER BY revision LIMIT $2) AS c ON true

-- name: acknowledge
SELECT latchgate_acknowledge($1, $2)

-- name: deregister
DELETE FROM replicas WHERE replica_id = $1

-- name: notify_acknowledged
SELECT pg_notify('latchgate_acknowledged', '')

-- name: read_replicas
-- Every running process, and whether its row may be missing: whether the timeline is not the trusted one. At least one
-- row, replica_id NULL where no process runs.
SELECT here.timeline, here.timeline = trusted.timeline AS is_trusted,
       r.replica_id, r.applied_revision, r.lease_seconds, r.beat
FROM (SELECT latchgate_timeline() AS timeline) AS here
CROSS JOIN trusted_timeline AS trusted LEFT JOIN replicas AS r ON true

-- name: examine_clock
-- The server's wall clock, in Unix seconds. One row.
SELECT extract(epoch FROM clock_timestamp()) AS time

-- name: examine_server
-- What a server says of itself, whatever is in the database. connections: that it takes from this role in this database;
-- taken: those of others than Latchgate. One row.
SELECT pg_is_in_recovery() AS is_standby,
       (SELECT jsonb_object_agg(s.name, s.setting) FROM pg_settings AS s
        WHERE s.name IN ('fsync', 'full_page_writes', 'synchronous_commit', 'synchronous_standby_names',
                         'idle_in_transaction_session_timeout')) AS settings,
       least(current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                 - coalesce(current_setting('reserved_connections', true)::int, 0),
             (SELECT nullif(d.datconnlimit, -1) FROM pg_database AS d WHERE d.datname = current_database()),
             (SELECT nullif(r.rolconnlimit, -1) FROM pg_roles AS r WHERE r.rolname = current_user)) AS connections,
       (SELECT count(*) FROM pg_stat_activity AS a WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
           AND coalesce(a.application_name, '') <> 'latchgate')::int AS taken,
       (SELECT count(*) FROM pg_stat_replication)::int AS standbys

-- name: examine_data
-- What is in the database that the promise rests on. Reads every key and audit event. One row.
SELECT (SELECT revision FROM revision_clock) AS revision,
       (SELECT timeline = latchgate_timeline() FROM trusted_timeline) AS timeline_is_trusted,
       (SELECT coalesce(jsonb_object_agg(p.pepper_id, p.keys), '{{}}')
        FROM (SELECT s.pepper_id, count(*) AS keys FROM key_secrets AS s WHERE s.pepper_id <> '' GROUP BY s.pepper_id) AS p
       ) AS peppers,
       ARRAY(SELECT DISTINCT e.pepper_id FROM audit_events AS e) AS audit_peppers,
       ARRAY(SELECT t.tgrelid::regclass || '.' || t.tgname FROM pg_trigger AS t
             WHERE t.tgname LIKE 'latchgate%' AND t.tgenabled <> 'A' AND pg_table_is_visible(t.tgrelid)
             ORDER BY 1) AS disabled_triggers

-- name: expire_replica
-- Forgets a replica whose lease ran out, unless it has beaten since. A promotion may repeat the numbers of beats: on
-- another timeline than $3, where the row was read, the row is another one.
DELETE FROM replicas WHERE replica_id = $1 AND beat = $2 AND latchgate_timeline() = $3

-- name: trust_timeline
UPDATE trusted_timeline SET timeline = $1

-- name: lend_quotas
-- A portion for each quota that is asked for, in no particular order; `place` counts from 1.
SELECT place, units, left_over, seconds_left, starts::text AS period_start, latchgate_timeline() AS timeline
FROM latchgate_lend_quotas($1, $2, $3, $4, $5, $6, $7, $8)

-- name: take_back_quotas
SELECT latchgate_take_back_quotas($1, $2::text[]::date[], $3, $4)

-- name: set_limit
-- Notes what a limit was set back to.
INSERT INTO limit_resets (holder, holder_id, name, spent) VALUES ($1, $2, $3, $4)
ON CONFLICT (holder, holder_id, name) DO UPDATE SET spent = excluded.spent

-- name: prune_quotas
-- Forgets what was used of quotas in periods that ended two months ago, and by keys that are gone.
DELETE FROM quota_grants AS q
WHERE (q.period_start > '-infinity' AND q.period_start < current_date - 62)
   OR (q.period_start = '-infinity' AND q.bucket LIKE 'key:%'
       AND NOT EXISTS (SELECT FROM keys AS k WHERE k.lineage_id = split_part(q.bucket, ':', 2)))

-- name: prune_resets
-- Forgets resets of lineages that are gone.
DELETE FROM limit_resets AS l
WHERE l.holder = 'KEY' AND NOT EXISTS (SELECT FROM keys AS k WHERE k.lineage_id = l.holder_id)

-- name: prune_changes
-- Forgets changes that are older than $1 seconds.
WITH gone AS (
    DELETE FROM changes WHERE commit_time < now() - make_interval(secs => $1) RETURNING revision
)
UPDATE changes_pruned SET revision = greatest(revision, (SELECT max(revision) FROM gone)) WHERE EXISTS (SELECT FROM gone)

-- name: load_records
-- Keys by id, or by the form of an imported one, each with all that a decision depends on. A row for each that was asked
-- for, its other columns NULL where no such key exists, and in each the revision of the snapshot.
SELECT wanted.id, (SELECT revision FROM revision_clock) AS snapshot_revision,
       {record}
FROM unnest($1::text[]) AS wanted (id)
{record_source}

-- name: insert_tenant
INSERT INTO tenants (tenant_id, display_name, enabled, plan_id, limits, tags)
VALUES ($1, $2, $3, nullif($4, ''), $5, $6)

-- name: update_tenant
UPDATE tenants SET display_name = $2, enabled = $3, plan_id = nullif($4, ''), limits = $5, tags = $6
WHERE tenant_id = $1

-- name: get_tenant
-- At most one row.
SELECT {tenant} FROM tenants WHERE tenant_id = $1

-- name: list_tenants
-- A page in the order of ids, after $1. At most $2 rows.
SELECT {tenant} FROM tenants WHERE tenant_id > $1 ORDER BY tenant_id LIMIT $2

-- name: delete_tenant_keys
DELETE FROM keys WHERE tenant_id = $1

-- name: delete_tenant
DELETE FROM tenants WHERE tenant_id = $1

-- name: insert_plan
INSERT INTO plans (plan_id, display_name, capabilities, key_limits, tenant_limits, max_keys)
VALUES ($1, $2, $3, $4, $5, $6)

-- name: get_plan
-- At most one row.
SELECT {plan} FROM plans WHERE plan_id = $1

-- name: update_plan
UPDATE plans SET display_name = $2, capabilities = $3, key_limits = $4, tenant_limits = $5, max_keys = $6
WHERE plan_id = $1

-- name: delete_plan
DELETE FROM plans WHERE plan_id = $1

-- name: tenant_on_plan
-- A tenant that is on the plan. At most one row.
SELECT tenant_id FROM tenants WHERE plan_id = $1 ORDER BY tenant_id LIMIT 1

-- name: list_plans
-- A page in the order of ids, after $1. At most $2 rows.
SELECT {plan} FROM plans WHERE plan_id > $1 ORDER BY plan_id LIMIT $2

-- name: plan_of_tenant
-- The plan that the tenant is on. At most one row.
SELECT {plan} FROM plans WHERE plan_id = (SELECT t.plan_id FROM tenants AS t WHERE t.tenant_id = $1)

-- name: insert_role
INSERT INTO roles (role_id, tenant_id, display_name, description, permissions, claims, allow_act_as)
VALUES ($1, nullif($2, ''), $3, $4, $5, $6, $7)

-- name: find_roles
-- The roles with the ids $2 that the tenant $1 can use: its own and those of every tenant. At most one row for each id.
SELECT {role} FROM roles WHERE role_id = ANY ($2::text[]) AND (tenant_id IS NULL OR tenant_id = $1)

-- name: update_role
UPDATE roles SET display_name = $3, description = $4, permissions = $5, claims = $6, allow_act_as = $7
WHERE role_id = $1 AND coalesce(tenant_id, '') = $2

-- name: delete_role
DELETE FROM roles WHERE role_id = $1 AND coalesce(tenant_id, '') = $2

-- name: key_with_role
-- A key that holds the role $1 of the tenant $2 ('': of every tenant). At most one row.
SELECT kr.key_id FROM key_roles AS kr JOIN roles AS r ON r.number = kr.role_number
WHERE r.role_id = $1 AND coalesce(r.tenant_id, '') = $2 ORDER BY kr.key_number LIMIT 1

-- name: role_id_taken
-- Whether a role $2 of the tenant $1 ('': of every tenant) would stand beside another of its id in one tenant's sight.
SELECT EXISTS (
    SELECT FROM roles WHERE role_id = $2 AND ($1::text = '' OR tenant_id IS NULL OR tenant_id = $1)
) AS taken

-- name: restrictions_of_holders
-- Every combination of restrictions that keys with the role $1 of the tenant $2 ('': of every tenant) have. At most $3.
SELECT DISTINCT k.resources, k.ip_allowlist_enabled, k.ip_allowlist, k.expire_time
FROM key_roles AS kr JOIN roles AS r ON r.number = kr.role_number JOIN keys AS k ON k.key_id = kr.key_id
WHERE r.role_id = $1 AND coalesce(r.tenant_id, '') = $2 AND k.state <> 'REVOKED'
LIMIT $3

-- name: list_roles
-- A page in the order of ids, after $2: those that every tenant may use and those of the tenant $1. At most $3 rows.
SELECT {role} FROM roles
WHERE number IN (
    (SELECT number FROM roles WHERE tenant_id IS NULL AND role_id > $2 ORDER BY role_id LIMIT $3)
    UNION ALL
    (SELECT number FROM roles WHERE tenant_id = $1 AND role_id > $2 ORDER BY role_id LIMIT $3)
)
ORDER BY role_id LIMIT $3

-- name: insert_key
INSERT INTO keys (key_id, tenant_id, display_name, description, owner, default_user, permissions, claims, environment,
                  tags, ip_allowlist_enabled, ip_allowlist, resources, expire_time, expired, rotate_by_time, limits,
                  state, revoke_time, revocation_reason, predecessor_key_id, successor_key_id, created_by, lineage_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24)

-- name: update_key
-- Returns what is stored then, which needs the key's roles to be stored before. At most one row.
UPDATE keys AS k SET display_name = $2, description = $3, owner = $4, default_user = $5, permissions = $6, claims = $7,
    environment = $8, tags = $9, ip_allowlist_enabled = $10, ip_allowlist = $11, resources = $12, expire_time = $13,
    expired = $14, rotate_by_time = $15, limits = $16, state = $17, revoke_time = $18, revocation_reason = $19,
    predecessor_key_id = $20, successor_key_id = $21
WHERE k.key_id = $1
RETURNING {key}, ARRAY(SELECT r.role_id FROM key_roles AS kr JOIN roles AS r ON r.number = kr.role_number
                       WHERE kr.key_id = k.key_id ORDER BY kr.position) AS role_ids

-- name: insert_keys
-- Stores new keys, a JSON object for each in $1. One statement, since each costs the triggers of the table once.
INSERT INTO keys (key_id, tenant_id, display_name, description, owner, default_user, permissions, claims, environment,
                  tags, ip_allowlist_enabled, ip_allowlist, resources, expire_time, expired, rotate_by_time, limits,
                  state, revoke_time, revocation_reason, predecessor_key_id, successor_key_id, created_by, lineage_id)
SELECT key_id, tenant_id, display_name, description, owner, default_user, permissions, claims, environment,
       tags, ip_allowlist_enabled, ip_allowlist, resources, expire_time, expired, rotate_by_time, limits,
       state, revoke_time, revocation_reason, predecessor_key_id, successor_key_id, created_by, lineage_id
FROM jsonb_populate_recordset(NULL::keys, $1::jsonb) WITH ORDINALITY AS k ORDER BY k.ordinality

-- name: insert_secrets
-- The hashes of imported secrets, which have no tag.
INSERT INTO key_secrets (key_id, profile, pepper_id, phc)
SELECT s.key_id, s.profile, s.pepper_id, s.phc
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS s (key_id, profile, pepper_id, phc)

-- name: insert_imported_forms
INSERT INTO imported_forms (form, key_id)
SELECT f.form, f.key_id FROM unnest($1::text[], $2::text[]) AS f (form, key_id)

-- name: replace_imported_form
UPDATE imported_forms SET form = $2 WHERE key_id = $1

-- name: insert_roles_of_keys
-- Gives the keys $1 the roles $4, each in its place $3, out of those that the tenants $2 can use: a row for each pair.
INSERT INTO key_roles (key_id, position, role_number)
SELECT wanted.key_id, wanted.position, r.number
FROM unnest($1::text[], $2::text[], $3::smallint[], $4::text[]) AS wanted (key_id, tenant_id, position, role_id)
JOIN roles AS r ON r.role_id = wanted.role_id AND (r.tenant_id IS NULL OR r.tenant_id = wanted.tenant_id)

-- name: taken_key_ids
-- Those of the key ids $1 that exist.
SELECT key_id FROM keys WHERE key_id = ANY ($1::text[])

-- name: taken_forms
-- Those of the forms $1 that an imported key is found by.
SELECT form FROM imported_forms WHERE form = ANY ($1::text[])

-- name: read_forms
-- Forms behind the revision $1 and form $2, in that order, at most $3; form NULL where there is none. In each row the
-- revision of the snapshot.
SELECT clock.revision AS snapshot_revision, f.form, f.revision
FROM revision_clock AS clock LEFT JOIN LATERAL (
    SELECT form, revision FROM imported_forms WHERE (revision, form) > ($1::bigint, $2::text)
    ORDER BY revision, form LIMIT $3
) AS f ON true

-- name: insert_secret
INSERT INTO key_secrets (key_id, profile, pepper_id, phc, tag) VALUES ($1, $2, $3, $4, $5)

-- name: replace_secret
-- Stores a new hash for the key $1 where the old one is still $2.
UPDATE key_secrets SET pepper_id = $3, phc = $4, tag = $5, profile = $6 WHERE key_id = $1 AND phc = $2

-- name: insert_key_roles
-- Gives the key $1 the roles $3, in their order, out of those that the tenant $2 can use.
INSERT INTO key_roles (key_id, position, role_number)
SELECT $1, wanted.position, r.number
FROM unnest($3::text[]) WITH ORDINALITY AS wanted (role_id, position)
JOIN roles AS r ON r.role_id = wanted.role_id AND (r.tenant_id IS NULL OR r.tenant_id = $2)

-- name: delete_key_roles
DELETE FROM key_roles WHERE key_id = $1

-- name: delete_key
DELETE FROM keys WHERE key_id = $1

-- name: administrators
-- Keys of the tenant $1 that are switched on and hold every grant of $2, those first that are usable most widely and for
-- longest. At most $3 rows.
SELECT k.key_id FROM keys AS k JOIN tenants AS t ON t.tenant_id = k.tenant_id
WHERE k.tenant_id = $1 AND t.enabled AND k.state = 'ACTIVE' AND NOT k.expired
  AND k.permissions || ARRAY(SELECT unnest(r.permissions) FROM key_roles AS kr JOIN roles AS r ON r.number = kr.role_number
                             WHERE kr.key_id = k.key_id) @> $2::text[]
ORDER BY k.ip_allowlist_enabled AND k.ip_allowlist <> '{{}}', k.expire_time DESC NULLS FIRST, k.key_id LIMIT $3

-- name: count_live_keys
-- How many keys of a tenant count against its plan's max_keys. One row.
SELECT count(*) AS keys FROM keys WHERE tenant_id = $1 AND state <> 'REVOKED' AND successor_key_id = ''

-- name: get_key
-- At most one row.
SELECT {key}, {last_use}, ARRAY(SELECT r.role_id FROM key_roles AS kr JOIN roles AS r ON r.number = kr.role_number
                                WHERE kr.key_id = k.key_id ORDER BY kr.position) AS role_ids
FROM keys AS k LEFT JOIN key_last_uses AS l ON l.key_number = k.number WHERE k.key_id = $1

-- name: get_keys
-- Those of the keys $1 that exist.
SELECT {key}, ARRAY(SELECT r.role_id FROM key_roles AS kr JOIN roles AS r ON r.number = kr.role_number
                    WHERE kr.key_id = k.key_id ORDER BY kr.position) AS role_ids
FROM keys AS k WHERE k.key_id = ANY ($1::text[])

-- name: plan_for_arguments
-- Until the transaction ends, plans each statement for its arguments. A merge join would have to read whatever stands in
-- the order before the first match.
SELECT set_config('plan_cache_mode', 'force_custom_plan', true), set_config('enable_mergejoin', 'off', true)

-- name: find_request
-- The key that this actor's request made, and what it asked for. At most one row.
SELECT key_id, call FROM key_requests WHERE actor = $1 AND request_id = $2

-- name: insert_request
INSERT INTO key_requests (actor, request_id, key_id, call) VALUES ($1, $2, $3, $4)

-- name: audit_events_after
-- A stretch of the chain, oldest first, behind the sequence $1. At most $2 rows.
SELECT {audit_event} FROM audit_events WHERE sequence > $1 ORDER BY sequence LIMIT $2

-- name: insert_audit_event
INSERT INTO audit_events (sequence, time, tenant_id, actor, actor_ip, method, target_type, target_id, before, after,
                          reason, revision, pepper_id, hash)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)

-- name: begin_usage_batch
-- Notes that the writer $1 writes its batch $2. No row where it has written it before.
INSERT INTO usage_writers (writer_id, sequence) VALUES ($1, $2)
ON CONFLICT (writer_id) DO UPDATE SET sequence = excluded.sequence, update_time = now()
WHERE usage_writers.sequence < excluded.sequence
RETURNING sequence

-- name: forget_usage_writer
DELETE FROM usage_writers WHERE writer_id = $1

-- name: forget_usage_writers
-- Forgets writers that have been silent for a day.
DELETE FROM usage_writers WHERE update_time < now() - interval '1 day'

-- name: add_key_usage
-- Counts decisions about keys: key ids, hours since 1970, outcomes, counts. Here and below, columns come as array literals
-- (array_literals.py), times in microseconds, and rows are locked in the order of their keys, so that two writers cannot
-- wait for each other.
INSERT INTO key_usage AS u (key_number, hour, outcome, count)
SELECT k.number, to_timestamp(n.hour * 3600.0), n.outcome, n.count
FROM unnest($1::text::text[], $2::text::bigint[], $3::text::smallint[], $4::text::bigint[]) AS n (key_id, hour, outcome, count)
JOIN keys AS k ON k.key_id = n.key_id
ORDER BY k.number, n.hour, n.outcome
ON CONFLICT (key_number, hour, outcome) DO UPDATE SET count = u.count + excluded.count

-- name: add_tenant_usage
-- The same for tenants, by their ids.
INSERT INTO tenant_usage AS u (tenant_number, hour, outcome, count)
SELECT t.number, to_timestamp(n.hour * 3600.0), n.outcome, n.count
FROM unnest($1::text::text[], $2::text::bigint[], $3::text::smallint[], $4::text::bigint[]) AS n (tenant_id, hour, outcome, count)
JOIN tenants AS t ON t.tenant_id = n.tenant_id
ORDER BY t.number, n.hour, n.outcome
ON CONFLICT (tenant_number, hour, outcome) DO UPDATE SET count = u.count + excluded.count

-- name: renew_last_uses
-- Stores the latest use of keys, and how often they were used in the latest hour that each writer tells, and in the one
-- before it. Returns those that were not used for $10 seconds before, and since when.
WITH told AS MATERIALIZED (
    SELECT k.key_id, k.number, k.tenant_id, coalesce(l.time, k.create_time) AS slept_since, to_timestamp(n.first / 1e6) AS first,
           to_timestamp(n.last / 1e6) AS last, n.client_ip, n.user_name, n.user_agent, n.busy_hour, n.busy_uses, n.busy_before
    FROM unnest($1::text::text[], $2::text::float8[], $3::text::float8[], $4::text::text[], $5::text::text[],
                $6::text::text[], $7::text::integer[], $8::text::bigint[], $9::text::bigint[])
        AS n (key_id, first, last, client_ip, user_name, user_agent, busy_hour, busy_uses, busy_before)
    JOIN keys AS k ON k.key_id = n.key_id LEFT JOIN key_last_uses AS l ON l.key_number = k.number
), renewed AS (
    INSERT INTO key_last_uses AS l (key_number, tenant_id, used, time, hour, client_ip, user_name, user_agent,
                                    busy_hour, busy_uses, busy_before, busy_step)
    SELECT number, tenant_id, true, last, date_trunc('hour', last), client_ip, user_name, user_agent,
           busy_hour, busy_uses, busy_before, {busy_step}
    FROM told ORDER BY number
    ON CONFLICT (key_number) DO UPDATE
    SET used = true,
        -- Another writer may have told of a later use already.
        time = CASE WHEN l.used AND l.time >= excluded.time THEN l.time ELSE excluded.time END,
        hour = CASE WHEN l.used AND l.time >= excluded.time THEN l.hour ELSE excluded.hour END,
        client_ip = CASE WHEN l.used AND l.time >= excluded.time THEN l.client_ip ELSE excluded.client_ip END,
        user_name = CASE WHEN l.used AND l.time >= excluded.time THEN l.user_name ELSE excluded.user_name END,
        user_agent = CASE WHEN l.used AND l.time >= excluded.time THEN l.user_agent ELSE excluded.user_agent END,
        (busy_hour, busy_uses, busy_before, busy_step) = (
            SELECT busy_hour, busy_uses, busy_before, {busy_step} FROM (
                SELECT latest.hour AS busy_hour,
                       CASE latest.hour WHEN l.busy_hour THEN l.busy_uses ELSE 0 END
                       + CASE latest.hour WHEN excluded.busy_hour THEN excluded.busy_uses ELSE 0 END AS busy_uses,
                       CASE latest.hour WHEN l.busy_hour THEN l.busy_before WHEN l.busy_hour + 1 THEN l.busy_uses ELSE 0 END
                       + CASE latest.hour WHEN excluded.busy_hour THEN excluded.busy_before
                                          WHEN excluded.busy_hour + 1 THEN excluded.busy_uses ELSE 0 END AS busy_before
                FROM (SELECT greatest(l.busy_hour, excluded.busy_hour) AS hour) AS latest
            ) AS both_told
        )
)
SELECT key_id, slept_since FROM told WHERE slept_since < first - make_interval(secs => $10)

-- name: add_key_sources
-- Counts uses by address, but for those without one. Returns the addresses that are new, but for the first ones of a key.
WITH told AS MATERIALIZED (
    SELECT k.key_id, k.number, n.client_ip, to_timestamp(n.first / 1e6) AS first, to_timestamp(n.last / 1e6) AS last, n.count,
           EXISTS (SELECT FROM key_sources AS s WHERE s.key_number = k.number) AS has_sources,
           EXISTS (SELECT FROM key_sources AS s WHERE s.key_number = k.number AND s.client_ip = n.client_ip) AS is_known
    FROM unnest($1::text::text[], $2::text::text[], $3::text::float8[], $4::text::float8[], $5::text::bigint[])
        AS n (key_id, client_ip, first, last, count)
    JOIN keys AS k ON k.key_id = n.key_id
    WHERE n.client_ip <> ''
), added AS (
    INSERT INTO key_sources AS s (key_number, client_ip, first_time, last_time, count)
    SELECT number, client_ip, first, last, count FROM told ORDER BY number, client_ip
    ON CONFLICT (key_number, client_ip) DO UPDATE
    SET first_time = least(s.first_time, excluded.first_time), last_time = greatest(s.last_time, excluded.last_time),
        count = s.count + excluded.count
)
SELECT key_id, client_ip FROM told WHERE has_sources AND NOT is_known

-- name: add_key_uses
INSERT INTO key_uses (key_number, time, outcome, client_ip, user_name, method, host, path, user_agent)
SELECT k.number, to_timestamp(n.time / 1e6), n.outcome, n.client_ip, n.user_name, n.method, n.host, n.path, n.user_agent
FROM unnest($1::text::text[], $2::text::float8[], $3::text::smallint[], $4::text::text[], $5::text::text[],
            $6::text::text[], $7::text::text[], $8::text::text[], $9::text::text[])
    AS n (key_id, time, outcome, client_ip, user_name, method, host, path, user_agent)
JOIN keys AS k ON k.key_id = n.key_id

-- name: trim_key_sources
-- Forgets all but the $2 most recent addresses of the keys $1. What somebody else is writing is left for the next time.
DELETE FROM key_sources WHERE (key_number, client_ip) IN (
    SELECT s.key_number, s.client_ip FROM keys AS k CROSS JOIN LATERAL (
        SELECT key_number, client_ip FROM key_sources WHERE key_number = k.number
        ORDER BY last_time DESC, client_ip OFFSET $2 FOR UPDATE SKIP LOCKED
    ) AS s WHERE k.key_id = ANY ($1::text[])
)

-- name: trim_key_uses
-- Forgets all but about the $2 latest uses of the keys $1, unless somebody else is at it.
DELETE FROM key_uses AS u USING (
    SELECT k.number, (
        SELECT time FROM key_uses WHERE key_number = k.number ORDER BY time DESC OFFSET $2 LIMIT 1
    ) AS time
    FROM keys AS k WHERE k.key_id = ANY ($1::text[])
) AS beyond
WHERE (SELECT pg_try_advisory_xact_lock(hashtext('latchgate_trim_key_uses')))
  AND u.key_number = beyond.number AND u.time <= beyond.time

-- name: make_usage_partitions
SELECT latchgate_make_usage_partitions()

-- name: drop_usage_partitions
-- Drops the counts that are older than $1 seconds, and single uses older than $2, by whole months.
SELECT latchgate_drop_usage_partitions(now() - make_interval(secs => $1), now() - make_interval(secs => $2))

-- name: forget_key_sources
-- Forgets addresses that no key was used from for $1 seconds.
DELETE FROM key_sources WHERE last_time < now() - make_interval(secs => $1)

-- name: forget_orphaned_usage
-- Removes the usage of some keys and tenants that are gone; those that went a moment ago may still be written to.
-- Returns a row for each.
WITH gone AS MATERIALIZED (
    SELECT key_number, tenant_number, ctid AS place FROM usage_orphans
    WHERE delete_time < now() - interval '1 minute' LIMIT 20 FOR UPDATE SKIP LOCKED
), counts AS (
    DELETE FROM key_usage WHERE key_number IN (SELECT key_number FROM gone)
), uses AS (
    DELETE FROM key_uses WHERE key_number IN (SELECT key_number FROM gone)
), last_uses AS (
    DELETE FROM key_last_uses WHERE key_number IN (SELECT key_number FROM gone)
), sources AS (
    DELETE FROM key_sources WHERE key_number IN (SELECT key_number FROM gone)
), tenants AS (
    DELETE FROM tenant_usage WHERE tenant_number IN (SELECT tenant_number FROM gone)
)
DELETE FROM usage_orphans WHERE ctid IN (SELECT place FROM gone) RETURNING key_number, tenant_number

-- name: read_key_usage
-- Decisions about the key $1 from $2 to before $3, by $4 (hour or day) and outcome.
SELECT date_trunc($4::text, u.hour, 'UTC') AS start, u.outcome, sum(u.count)::bigint AS count
FROM key_usage AS u
WHERE u.key_number = (SELECT number FROM keys WHERE key_id = $1) AND u.hour >= $2 AND u.hour < $3
GROUP BY 1, 2 ORDER BY 1, 2

-- name: read_tenant_usage
-- The same for the tenant $1.
SELECT date_trunc($4::text, u.hour, 'UTC') AS start, u.outcome, sum(u.count)::bigint AS count
FROM tenant_usage AS u
WHERE u.tenant_number = (SELECT number FROM tenants WHERE tenant_id = $1) AND u.hour >= $2 AND u.hour < $3
GROUP BY 1, 2 ORDER BY 1, 2

-- name: read_key_uses
-- The latest uses of the key $1, newest first. At most $2 rows.
SELECT u.time, u.outcome, u.client_ip, u.user_name, u.method, u.host, u.path, u.user_agent
FROM key_uses AS u WHERE u.key_number = (SELECT number FROM keys WHERE key_id = $1)
ORDER BY u.time DESC LIMIT $2

-- name: read_key_sources
-- A page of the most recent addresses of the key $1, after the last time $2 and address $3 unless that is NULL. At most
-- $4 rows, all among the first $5.
SELECT s.client_ip, s.first_time, s.last_time, s.count FROM (
    SELECT client_ip, first_time, last_time, count FROM key_sources
    WHERE key_number = (SELECT number FROM keys WHERE key_id = $1)
    ORDER BY last_time DESC, client_ip LIMIT $5
) AS s
WHERE $2::timestamptz IS NULL OR s.last_time < $2 OR (s.last_time = $2 AND s.client_ip > $3)
ORDER BY s.last_time DESC, s.client_ip LIMIT $4

-- name: read_busiest_keys
-- The keys with the most uses in the hour $1 (since 1970) and the one before it, the most used first. At most $2 rows,
-- out of the $3 of either hour that lead its index.
SELECT {busy_key} FROM (
    SELECT key_number, this_hour, hour_before, this_hour + hour_before AS uses FROM (
        (SELECT key_number, busy_uses AS this_hour, busy_before AS hour_before FROM key_last_uses
         WHERE busy_hour = $1 ORDER BY busy_step DESC LIMIT $3)
        UNION ALL
        (SELECT key_number, 0, busy_uses FROM key_last_uses WHERE busy_hour = $1 - 1 ORDER BY busy_step DESC LIMIT $3)
    ) AS each_hour ORDER BY uses DESC, key_number
) AS b {busy_key_source}

-- name: read_busiest_keys_of_tenant
-- The same of the tenant $4.
SELECT {busy_key} FROM (
    SELECT key_number, this_hour, hour_before, this_hour + hour_before AS uses FROM (
        (SELECT key_number, busy_uses AS this_hour, busy_before AS hour_before FROM key_last_uses
         WHERE tenant_id = $4 AND busy_hour = $1 ORDER BY -busy_step LIMIT $3)
        UNION ALL
        (SELECT key_number, 0, busy_uses FROM key_last_uses
         WHERE tenant_id = $4 AND busy_hour = $1 - 1 ORDER BY -busy_step LIMIT $3)
    ) AS each_hour ORDER BY uses DESC, key_number
) AS b {busy_key_source}

-- name: read_traffic
-- How the key $1 was used up to $2, but for its latest use; wrong secrets ($3) are no use of it. At most one row.
SELECT ARRAY(SELECT DISTINCT hour FROM key_usage
             WHERE key_number = k.number AND outcome <> $3 AND hour > $2::timestamptz - interval '30 days' ORDER BY hour) AS used_hours,
       EXISTS (SELECT FROM key_usage WHERE key_number = k.number AND outcome <> $3
               AND hour <= $2::timestamptz - interval '30 days') AS used_before,
       (SELECT coalesce(sum(count), 0)::bigint FROM key_usage
        WHERE key_number = k.number AND outcome <> $3 AND hour > $2::timestamptz - interval '1 day') AS uses_day,
       (SELECT coalesce(sum(count), 0)::bigint FROM key_usage
        WHERE key_number = k.number AND outcome = 0 AND hour > $2::timestamptz - interval '1 day') AS allowed_day,
       (SELECT coalesce(sum(count), 0)::bigint FROM key_usage
        WHERE key_number = k.number AND outcome <> $3 AND hour > $2::timestamptz - interval '1 hour') AS this_hour,
       (SELECT coalesce(sum(count), 0)::bigint FROM key_usage
        WHERE key_number = k.number AND outcome <> $3
          AND hour > $2::timestamptz - interval '2 hours' AND hour <= $2::timestamptz - interval '1 hour') AS hour_before,
       (SELECT count(*) FROM (SELECT time FROM key_uses WHERE key_number = k.number AND time > $2::timestamptz - interval '1 hour'
                              ORDER BY time DESC LIMIT $4) AS latest) AS latest_uses
FROM keys AS k WHERE k.key_id = $1
