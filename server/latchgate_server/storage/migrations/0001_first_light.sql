-- Tenants, plans, roles and keys; the revision clock that orders every change to them; what replicas need to follow it;
-- and the audit log. Needs PostgreSQL 15 or newer (NULLS NOT DISTINCT).

-- What is made once for a deployment and never changed.
CREATE TABLE deployment (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    -- Keys the tag in our key ids: a filter against floods, no secret that opens anything.
    key_id_tag_key bytea NOT NULL CHECK (length(key_id_tag_key) = 32),
    create_time timestamptz NOT NULL DEFAULT now()
);
INSERT INTO deployment (key_id_tag_key)
VALUES (sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())));

-- Change numbers ------------------------------------------------------------------------------------------------------

-- One row. Whoever changes a decision table holds its lock until commit, so the order of revisions is the order of
-- commits and no reader ever meets a gap.
CREATE TABLE revision_clock (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    revision bigint NOT NULL
);
INSERT INTO revision_clock (revision) VALUES (1);

-- What to evict from memory, by revision. id '' stands for every record.
CREATE TABLE changes (
    revision bigint NOT NULL,
    entity text NOT NULL CHECK (entity IN ('key', 'tenant', 'plan', 'role', 'import', 'all')),
    id text NOT NULL,
    commit_time timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX changes_revision ON changes (revision);
CREATE INDEX changes_commit_time ON changes (commit_time);

-- Up to which revision changes may have been pruned. One row, set in the statement that prunes.
CREATE TABLE changes_pruned (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    revision bigint NOT NULL
);
INSERT INTO changes_pruned (revision) VALUES (0);

-- One row for each running process; see docs/consistency.md. Never UNLOGGED: the promise rests on its rows.
CREATE SEQUENCE replica_beats;
CREATE TABLE replicas (
    replica_id text PRIMARY KEY,
    applied_revision bigint NOT NULL,
    lease_seconds double precision NOT NULL CHECK (lease_seconds > 0),
    beat bigint NOT NULL DEFAULT nextval('replica_beats')
);

-- The timeline whose rows in `replicas` are known to be whole. A promoted standby, or a restored backup, runs on another
-- one until a mutation has waited long enough for every lease that it may have forgotten.
CREATE FUNCTION latchgate_timeline() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT system_identifier || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM pg_control_system()
$$;
CREATE TABLE trusted_timeline (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    timeline text NOT NULL
);
INSERT INTO trusted_timeline (timeline) VALUES (latchgate_timeline());

-- Notes that a replica has evicted everything up to a revision, and tells the mutators that wait. Its commit need not be
-- synchronous: an acknowledgement that is lost only makes a mutator wait longer.
CREATE FUNCTION latchgate_acknowledge(replica text, applied bigint) RETURNS void LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    UPDATE replicas SET applied_revision = applied WHERE replica_id = replica AND applied_revision < applied;
    PERFORM pg_notify('latchgate_acknowledged', replica || ' ' || applied);
END
$$;

-- Takes the revision clock for the running transaction, the first time it is called in it, and returns the
-- transaction's revision. Our own mutations call it as their first statement; the triggers below call it for SQL typed
-- by hand. Whoever wants to change several rows by hand does well to begin with SELECT latchgate_begin_change().
CREATE FUNCTION latchgate_begin_change() RETURNS bigint LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    this_transaction text := pg_current_xact_id()::text;
    taken bigint;
BEGIN
    IF current_setting('latchgate.changing', true) IS DISTINCT FROM this_transaction THEN
        UPDATE revision_clock SET revision = revision + 1 RETURNING revision INTO STRICT taken;
        PERFORM set_config('latchgate.changing', this_transaction, true);
        PERFORM set_config('latchgate.revision', taken::text, true);
    END IF;
    RETURN current_setting('latchgate.revision')::bigint;
END
$$;

-- Notes, for the trigger after it, which revision the statement's own snapshot shows. STABLE is what makes it read that
-- snapshot and not a newer one.
CREATE FUNCTION latchgate_note_snapshot() RETURNS trigger LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM set_config('latchgate.snapshot', (SELECT revision FROM revision_clock)::text, true);
    RETURN NULL;
END
$$;

-- Takes the clock before a statement changes a decision table. A statement that had to wait for it would act on a
-- snapshot from before the wait and could miss rows committed meanwhile: it fails instead, and works when repeated.
CREATE FUNCTION latchgate_take_clock() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    first boolean := current_setting('latchgate.changing', true) IS DISTINCT FROM pg_current_xact_id()::text;
    taken bigint := latchgate_begin_change();
BEGIN
    IF first AND taken - 1 IS DISTINCT FROM current_setting('latchgate.snapshot')::bigint THEN
        RAISE EXCEPTION 'another change was committed while this statement waited for its turn'
            USING ERRCODE = 'serialization_failure',
                  HINT = 'Run it again, or begin the transaction with SELECT latchgate_begin_change().';
    END IF;
    RETURN NULL;
END
$$;

-- Records what a statement changed, from its rows before and after. Arguments: entity, column that holds its id.
CREATE FUNCTION latchgate_record_changes() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    taken bigint := latchgate_begin_change();
    touched text;
    written bigint;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        INSERT INTO changes (revision, entity, id) VALUES (taken, 'all', '');
    ELSE
        touched := CASE TG_OP
            WHEN 'INSERT' THEN format('SELECT %I::text AS id FROM new_rows', TG_ARGV[1])
            WHEN 'DELETE' THEN format('SELECT %I::text AS id FROM old_rows', TG_ARGV[1])
            ELSE format('SELECT %1$I::text AS id FROM new_rows UNION SELECT %1$I::text FROM old_rows', TG_ARGV[1])
        END;
        EXECUTE format(
            'WITH touched AS (SELECT DISTINCT id FROM (%s) AS rows), few AS (SELECT id FROM touched LIMIT 1001)
             INSERT INTO changes (revision, entity, id)
             SELECT $1, $2, id FROM few WHERE (SELECT count(*) FROM few) <= 1000
             UNION ALL
             SELECT $1, ''all'', '''' WHERE (SELECT count(*) FROM few) > 1000', touched)
        USING taken, TG_ARGV[0];
        GET DIAGNOSTICS written = ROW_COUNT;
        IF written = 0 THEN
            RETURN NULL;
        END IF;
    END IF;
    PERFORM pg_notify('latchgate_changes', '');
    RETURN NULL;
END
$$;

-- Keeps the columns that every change renews.
CREATE FUNCTION latchgate_stamp() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    NEW.revision := latchgate_begin_change();
    NEW.update_time := clock_timestamp();
    RETURN NEW;
END
$$;

-- The decision tables -------------------------------------------------------------------------------------------------
-- `revision` is the row's etag. Keys come before roles so that deleting a tenant removes its keys before their roles.

CREATE TABLE plans (
    plan_id text PRIMARY KEY,
    display_name text NOT NULL,
    capabilities text[] NOT NULL,
    key_limits jsonb NOT NULL,
    tenant_limits jsonb NOT NULL,
    max_keys integer NOT NULL CHECK (max_keys >= 0),
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    update_time timestamptz NOT NULL,
    revision bigint NOT NULL
);

CREATE TABLE tenants (
    tenant_id text PRIMARY KEY CHECK (tenant_id ~ '^[a-z][a-z0-9-]{0,62}$'),
    display_name text NOT NULL,
    enabled boolean NOT NULL DEFAULT true,
    plan_id text REFERENCES plans,
    limits jsonb NOT NULL,
    tags jsonb NOT NULL,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    update_time timestamptz NOT NULL,
    revision bigint NOT NULL
);
CREATE INDEX tenants_plan ON tenants (plan_id) WHERE plan_id IS NOT NULL;

CREATE TABLE keys (
    key_id text PRIMARY KEY,
    -- The order of creation, newest first in lists.
    number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    tenant_id text NOT NULL REFERENCES tenants ON DELETE CASCADE,
    display_name text NOT NULL,
    description text NOT NULL,
    owner text NOT NULL,
    default_user text NOT NULL,
    permissions text[] NOT NULL,
    claims jsonb NOT NULL,
    environment text NOT NULL,
    tags jsonb NOT NULL,
    ip_allowlist_enabled boolean NOT NULL,
    ip_allowlist text[] NOT NULL,
    resources text[] NOT NULL,
    expire_time timestamptz,
    -- Decides without any clock; set by ExpireKey, cleared by a later expire_time.
    expired boolean NOT NULL DEFAULT false,
    rotate_by_time timestamptz,
    limits jsonb NOT NULL,
    state text NOT NULL CHECK (state IN ('ACTIVE', 'DISABLED', 'REVOKED')),
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL,
    update_time timestamptz NOT NULL,
    revoke_time timestamptz,
    revocation_reason text NOT NULL DEFAULT '',
    -- The first key before all rotations: what has been used of limits belongs to it.
    lineage_id text NOT NULL,
    -- No foreign keys: they outlive the keys that they name.
    predecessor_key_id text NOT NULL DEFAULT '',
    successor_key_id text NOT NULL DEFAULT '',
    revision bigint NOT NULL
);
-- For ListKeys: every filter finds a page in the order that it is told in, however many keys match and whatever their age.
-- What else is asked for together with it stands last, to be compared within the index.
CREATE INDEX keys_tenant ON keys (tenant_id, number);
CREATE INDEX keys_state ON keys (state, number, tenant_id);
CREATE INDEX keys_owner ON keys (owner, number, tenant_id, state, environment) WHERE owner <> '';
CREATE INDEX keys_environment ON keys (environment, number, tenant_id, state) WHERE environment <> '';
CREATE INDEX keys_expire_time ON keys (expire_time, number, tenant_id, state) WHERE expire_time IS NOT NULL;
CREATE INDEX keys_rotate_by_time ON keys (rotate_by_time, number, tenant_id, state) WHERE rotate_by_time IS NOT NULL;
-- What goes together, or never does: the planner shall not multiply.
CREATE STATISTICS keys_environment_state ON environment, state FROM keys;
CREATE STATISTICS keys_owner_environment ON owner, environment FROM keys;
CREATE STATISTICS keys_owner_state ON owner, state FROM keys;
CREATE STATISTICS keys_tenant_owner ON tenant_id, owner FROM keys;
CREATE STATISTICS keys_tenant_environment ON tenant_id, environment FROM keys;

-- All that is kept of the secrets, apart from what administrators read.
CREATE TABLE key_secrets (
    key_id text PRIMARY KEY REFERENCES keys ON DELETE CASCADE,
    profile text NOT NULL CHECK (profile IN ('generated', 'imported', 'foreign', 'digest')),
    -- '' for a foreign hash: no pepper of ours had a part in it.
    pepper_id text NOT NULL,
    -- For the profile digest the form by which the key is found.
    phc text NOT NULL,
    tag bytea
);

-- By what the keys of other systems are found, beside their key ids: a keyed digest of the whole credential, or the key
-- id where that stands in front of the secret. Replicas keep a filter of all forms in memory, and read what is new by
-- revision: `revision` rises with every change of a row.
CREATE TABLE imported_forms (
    form text PRIMARY KEY,
    key_id text NOT NULL UNIQUE REFERENCES keys ON DELETE CASCADE,
    update_time timestamptz NOT NULL,
    revision bigint NOT NULL
);
CREATE INDEX imported_forms_revision ON imported_forms (revision, form);

CREATE TABLE roles (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    role_id text NOT NULL,
    -- NULL: usable by every tenant.
    tenant_id text REFERENCES tenants ON DELETE CASCADE,
    display_name text NOT NULL,
    description text NOT NULL,
    permissions text[] NOT NULL,
    claims jsonb NOT NULL,
    allow_act_as boolean NOT NULL,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    update_time timestamptz NOT NULL,
    revision bigint NOT NULL,
    UNIQUE NULLS NOT DISTINCT (tenant_id, role_id),
    UNIQUE (number, role_id)
);

CREATE TABLE key_roles (
    key_id text NOT NULL REFERENCES keys ON DELETE CASCADE,
    position smallint NOT NULL,
    role_number bigint NOT NULL,
    -- What ListKeys looks for, repeated from roles and keys by the trigger below.
    role_id text NOT NULL,
    key_number bigint NOT NULL,
    tenant_id text NOT NULL,
    PRIMARY KEY (key_id, position),
    -- With the tenant, which the key's number determines, so that it is compared within the index.
    UNIQUE (role_number, key_number, tenant_id),
    FOREIGN KEY (role_number, role_id) REFERENCES roles (number, role_id) ON UPDATE CASCADE
);
CREATE INDEX key_roles_listed ON key_roles (role_id, key_number, tenant_id);

CREATE FUNCTION latchgate_list_role() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    SELECT number, tenant_id INTO NEW.key_number, NEW.tenant_id FROM keys WHERE key_id = NEW.key_id;
    SELECT role_id INTO NEW.role_id FROM roles WHERE number = NEW.role_number;
    RETURN NEW;
END
$$;
CREATE TRIGGER latchgate_list_role BEFORE INSERT OR UPDATE ON key_roles
    FOR EACH ROW EXECUTE FUNCTION latchgate_list_role();
ALTER TABLE key_roles ENABLE ALWAYS TRIGGER latchgate_list_role;

-- Makes CreateKey safe to repeat.
CREATE TABLE key_requests (
    actor text NOT NULL,
    request_id uuid NOT NULL,
    key_id text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (actor, request_id)
);

DO $$
DECLARE
    watched record;
    event text;
BEGIN
    FOR watched IN VALUES ('plans', 'plan', 'plan_id'), ('tenants', 'tenant', 'tenant_id'), ('keys', 'key', 'key_id'),
        ('key_secrets', 'key', 'key_id'), ('roles', 'role', 'number'), ('key_roles', 'key', 'key_id'),
        ('imported_forms', 'import', 'key_id')
    LOOP
        EXECUTE format('CREATE TRIGGER latchgate_1_note_snapshot BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %I
            FOR EACH STATEMENT EXECUTE FUNCTION latchgate_note_snapshot()', watched.column1);
        EXECUTE format('CREATE TRIGGER latchgate_2_take_clock BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %I
            FOR EACH STATEMENT EXECUTE FUNCTION latchgate_take_clock()', watched.column1);
        FOR event IN VALUES ('INSERT'), ('UPDATE'), ('DELETE'), ('TRUNCATE')
        LOOP
            EXECUTE format('CREATE TRIGGER %I AFTER %s ON %I %s FOR EACH STATEMENT
                EXECUTE FUNCTION latchgate_record_changes(%L, %L)',
                'latchgate_3_record_' || lower(event), event, watched.column1,
                CASE event
                    WHEN 'INSERT' THEN 'REFERENCING NEW TABLE AS new_rows'
                    WHEN 'UPDATE' THEN 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows'
                    WHEN 'DELETE' THEN 'REFERENCING OLD TABLE AS old_rows'
                    ELSE ''
                END, watched.column2, watched.column3);
            EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER %I', watched.column1,
                'latchgate_3_record_' || lower(event));
        END LOOP;
        EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER latchgate_1_note_snapshot', watched.column1);
        EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER latchgate_2_take_clock', watched.column1);
    END LOOP;
    FOR watched IN VALUES ('plans'), ('tenants'), ('keys'), ('roles'), ('imported_forms')
    LOOP
        EXECUTE format('CREATE TRIGGER latchgate_stamp BEFORE INSERT OR UPDATE ON %I
            FOR EACH ROW EXECUTE FUNCTION latchgate_stamp()', watched.column1);
        EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER latchgate_stamp', watched.column1);
    END LOOP;
END
$$;

-- What ListKeys finds keys by ------------------------------------------------------------------------------------------
-- Copies of what stands in keys, kept by triggers, so that no decision depends on them.

CREATE TABLE key_tags (
    name text NOT NULL,
    value text NOT NULL,
    number bigint NOT NULL,
    tenant_id text NOT NULL,
    PRIMARY KEY (name, value, number, tenant_id)
);

CREATE STATISTICS key_tags_pairs ON name, value FROM key_tags;

CREATE TABLE key_texts (
    number bigint PRIMARY KEY,
    tenant_id text NOT NULL,
    key_id text NOT NULL,
    -- Display name and description, in lower case.
    text text NOT NULL
);
CREATE INDEX key_texts_tenant ON key_texts (tenant_id, number);

-- What of a key can be looked for: the chunk of 8,192 keys that it belongs to, with each piece of up to three characters of
-- its text and, behind '^', with some starts of its id. A search goes from chunk to chunk and stops when it has a page.
CREATE FUNCTION latchgate_pieces(number bigint, key_id text, whole text) RETURNS text[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE COST 10000 AS $$
    SELECT array_agg((number >> 13) || piece) FROM (
        SELECT ' ' || substr(whole, place, size) AS piece
        FROM generate_series(1, 3) AS size CROSS JOIN generate_series(1, length(whole) - size + 1) AS place
        UNION
        SELECT '^' || left(key_id, size) FROM unnest('{1,2,3,4,6,8,12}'::integer[]) AS size WHERE size <= length(key_id)
    ) AS pieces
$$;
CREATE INDEX key_texts_pieces ON key_texts USING gin (latchgate_pieces(number, key_id, text));

-- The pieces that a key has if its text holds what is sought, and the one that it has if its id begins with it, each to be
-- put behind a chunk.
CREATE FUNCTION latchgate_pieces_sought(sought text, OUT in_text text[], OUT at_start text)
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT (SELECT array_agg(DISTINCT ' ' || substr(lower(sought), place, least(3, length(sought))))
            FROM generate_series(1, greatest(length(lower(sought)) - 2, 1)) AS place),
           (SELECT '^' || left(sought, max(size)) FROM unnest('{1,2,3,4,6,8,12}'::integer[]) AS size
            WHERE size <= length(sought))
$$;

CREATE FUNCTION latchgate_list_keys() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        TRUNCATE key_tags, key_texts;
    ELSIF TG_OP = 'DELETE' THEN
        DELETE FROM key_texts AS t USING old_rows AS k WHERE t.number = k.number;
        DELETE FROM key_tags AS t USING old_rows AS k CROSS JOIN jsonb_each_text(k.tags) AS tag
        WHERE (t.name, t.value, t.number, t.tenant_id) = (tag.key, tag.value, k.number, k.tenant_id);
    ELSE
        INSERT INTO key_tags (name, value, number, tenant_id)
        SELECT tag.key, tag.value, k.number, k.tenant_id FROM new_rows AS k CROSS JOIN jsonb_each_text(k.tags) AS tag;
        INSERT INTO key_texts (number, tenant_id, key_id, text)
        SELECT k.number, k.tenant_id, k.key_id, lower(concat_ws(chr(10), k.display_name, k.description))
        FROM new_rows AS k;
    END IF;
    RETURN NULL;
END
$$;
CREATE FUNCTION latchgate_list_changed_key() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM key_tags AS t USING jsonb_each_text(OLD.tags) AS tag
    WHERE (t.name, t.value, t.number, t.tenant_id) = (tag.key, tag.value, OLD.number, OLD.tenant_id);
    INSERT INTO key_tags (name, value, number, tenant_id)
    SELECT tag.key, tag.value, NEW.number, NEW.tenant_id FROM jsonb_each_text(NEW.tags) AS tag;
    DELETE FROM key_texts WHERE number = OLD.number;
    INSERT INTO key_texts (number, tenant_id, key_id, text)
    VALUES (NEW.number, NEW.tenant_id, NEW.key_id, lower(concat_ws(chr(10), NEW.display_name, NEW.description)));
    RETURN NULL;
END
$$;
CREATE TRIGGER latchgate_list_new AFTER INSERT ON keys REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION latchgate_list_keys();
CREATE TRIGGER latchgate_list_gone AFTER DELETE ON keys REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION latchgate_list_keys();
CREATE TRIGGER latchgate_list_none AFTER TRUNCATE ON keys FOR EACH STATEMENT EXECUTE FUNCTION latchgate_list_keys();
CREATE TRIGGER latchgate_list_changed AFTER UPDATE ON keys FOR EACH ROW
    WHEN ((OLD.number, OLD.tenant_id, OLD.key_id, OLD.tags, OLD.display_name, OLD.description)
          IS DISTINCT FROM (NEW.number, NEW.tenant_id, NEW.key_id, NEW.tags, NEW.display_name, NEW.description))
    EXECUTE FUNCTION latchgate_list_changed_key();
ALTER TABLE keys ENABLE ALWAYS TRIGGER latchgate_list_new;
ALTER TABLE keys ENABLE ALWAYS TRIGGER latchgate_list_gone;
ALTER TABLE keys ENABLE ALWAYS TRIGGER latchgate_list_none;
ALTER TABLE keys ENABLE ALWAYS TRIGGER latchgate_list_changed;

-- The audit log -------------------------------------------------------------------------------------------------------

CREATE TABLE audit_events (
    sequence bigint PRIMARY KEY,
    time timestamptz NOT NULL,
    tenant_id text NOT NULL,
    actor text NOT NULL,
    actor_ip text NOT NULL,
    method text NOT NULL,
    target_type text NOT NULL,
    target_id text NOT NULL,
    before jsonb NOT NULL,
    after jsonb NOT NULL,
    reason text NOT NULL,
    revision bigint NOT NULL,
    -- Which pepper the chain's key was derived from, and the chain itself; see admin/audit.py.
    pepper_id text NOT NULL,
    hash bytea NOT NULL
);
-- For ListAuditEvents, which tells the newest first and asks for times.
CREATE INDEX audit_events_time ON audit_events (time, sequence);
CREATE INDEX audit_events_tenant ON audit_events (tenant_id, time, sequence);
CREATE INDEX audit_events_target ON audit_events (target_id, time, sequence);
CREATE INDEX audit_events_actor ON audit_events (actor, time, sequence);
