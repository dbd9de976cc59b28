-- All migrations applied, as pg_dump tells it: for reading, never run. A test compares the two. After a change of the
-- migrations: python -m tests.storage.schema_dump

CREATE FUNCTION public.latchgate_acknowledge(replica text, applied bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO '$user', 'public'
    AS $$
DECLARE
    own bigint;
    reached bigint;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    -- In turn: of several that acknowledge at once, the last shall see what the others have written.
    PERFORM pg_advisory_xact_lock(hashtext('latchgate_acknowledge'));
    SELECT applied_revision INTO own FROM replicas WHERE replica_id = replica;
    UPDATE replicas SET applied_revision = applied WHERE replica_id = replica AND applied_revision < applied;
    SELECT min(applied_revision) INTO reached FROM replicas;
    IF reached > own THEN
        PERFORM pg_notify('latchgate_acknowledged', reached::text);
    END IF;
END
$$;

CREATE FUNCTION public.latchgate_begin_change() RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO '$user', 'public'
    AS $$
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

CREATE FUNCTION public.latchgate_drop_usage_partitions(counts_from timestamp with time zone, uses_from timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO '$user', 'public'
    SET "TimeZone" TO 'UTC'
    AS $_$
DECLARE
    partition record;
BEGIN
    FOR partition IN
        SELECT child.relname AS name, parent.relname AS parent
        FROM pg_inherits AS i JOIN pg_class AS child ON child.oid = i.inhrelid
        JOIN pg_class AS parent ON parent.oid = i.inhparent
        WHERE i.inhparent IN ('key_usage'::regclass, 'tenant_usage'::regclass, 'key_uses'::regclass)
          AND child.relname ~ '_[0-9]{6}$'
    LOOP
        IF to_date(right(partition.name, 6), 'YYYYMM') + interval '1 month'
           < (CASE partition.parent WHEN 'key_uses' THEN uses_from ELSE counts_from END) THEN
            EXECUTE format('DROP TABLE IF EXISTS %I', partition.name);
        END IF;
    END LOOP;
END
$_$;

CREATE FUNCTION public.latchgate_forget_tenant_limits() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO '$user', 'public'
    AS $$
BEGIN
    DELETE FROM limit_resets WHERE holder = 'TENANT' AND holder_id = OLD.tenant_id;
    DELETE FROM quota_grants
    WHERE bucket >= 'tenant:' || OLD.tenant_id || ':' AND bucket < 'tenant:' || OLD.tenant_id || ';';
    RETURN NULL;
END
$$;

CREATE FUNCTION public.latchgate_lend_quotas(buckets text[], periods text[], limits bigint[], spents bigint[], reset_times double precision[], leasts bigint[], dues bigint[], wants bigint[]) RETURNS TABLE(place bigint, units bigint, left_over bigint, seconds_left double precision, starts date)
    LANGUAGE plpgsql
    SET search_path TO '$user', 'public'
    AS $$
DECLARE
    processes bigint := greatest(1, (SELECT count(*) FROM replicas));
    today timestamp := clock_timestamp() AT TIME ZONE 'UTC';
    wish record;
    taken bigint;
    ends timestamp;
BEGIN
    FOR wish IN
        SELECT * FROM unnest(buckets, periods, limits, spents, reset_times, leasts, dues, wants)
            WITH ORDINALITY AS w (bucket, period, quota, spent, reset_time, least, due, want, place)
        ORDER BY w.bucket COLLATE "C"
    LOOP
        place := wish.place;
        starts := CASE wish.period
            WHEN 'DAY' THEN today::date
            WHEN 'MONTH' THEN date_trunc('month', today)::date
            ELSE '-infinity'::date
        END;
        ends := CASE wish.period
            WHEN 'DAY' THEN starts + interval '1 day'
            WHEN 'MONTH' THEN starts + interval '1 month'
        END;
        INSERT INTO quota_grants AS q (bucket, period_start, granted) VALUES (wish.bucket, starts, 0)
        ON CONFLICT DO NOTHING;
        SELECT q.granted INTO STRICT taken FROM quota_grants AS q
        WHERE q.bucket = wish.bucket AND q.period_start = starts FOR UPDATE;
        left_over := wish.quota - taken;
        IF starts = '-infinity' OR to_timestamp(wish.reset_time) AT TIME ZONE 'UTC' >= starts THEN
            left_over := left_over - wish.spent;
        END IF;
        left_over := greatest(left_over, 0);
        units := CASE
            WHEN left_over < wish.least THEN 0
            ELSE least(left_over, greatest(wish.due, least(wish.want, left_over / (2 * processes))))
        END;
        IF units > 0 THEN
            UPDATE quota_grants AS q SET granted = q.granted + units
            WHERE q.bucket = wish.bucket AND q.period_start = starts;
        END IF;
        left_over := left_over - units;
        seconds_left := extract(epoch FROM ends - clock_timestamp() AT TIME ZONE 'UTC');
        RETURN NEXT;
    END LOOP;
END
$$;

CREATE FUNCTION public.latchgate_list_changed_key() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO '$user', 'public'
    AS $$
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

CREATE FUNCTION public.latchgate_list_keys() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO '$user', 'public'
    AS $$
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

CREATE FUNCTION public.latchgate_list_role() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO '$user', 'public'
    AS $$
BEGIN
    SELECT number, tenant_id INTO NEW.key_number, NEW.tenant_id FROM keys WHERE key_id = NEW.key_id;
    SELECT role_id INTO NEW.role_id FROM roles WHERE number = NEW.role_number;
    RETURN NEW;
END
$$;

CREATE FUNCTION public.latchgate_list_unused() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO '$user', 'public'
    AS $$
BEGIN
    INSERT INTO key_last_uses (key_number, tenant_id, used, time, hour, client_ip, user_name, user_agent)
    SELECT number, tenant_id, false, create_time, date_trunc('hour', create_time), '', '', '' FROM new_rows;
    RETURN NULL;
END
$$;

CREATE FUNCTION public.latchgate_make_usage_partitions() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO '$user', 'public'
    SET "TimeZone" TO 'UTC'
    AS $$
DECLARE
    this_month timestamptz := date_trunc('month', now());
    parent text;
    month timestamptz;
    partition text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['key_usage', 'tenant_usage', 'key_uses'] LOOP
        FOR month IN SELECT this_month + make_interval(months => n) FROM generate_series(-1, 2) AS n LOOP
            partition := parent || to_char(month, '_YYYYMM');
            IF to_regclass(partition) IS NULL THEN
                -- One process at a time; the others find the partition made.
                PERFORM pg_advisory_xact_lock(hashtext('latchgate_make_usage_partitions'));
                EXECUTE format('CREATE TABLE IF NOT EXISTS %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)
                    WITH (fillfactor = 80)', partition, parent, month, month + interval '1 month');
            END IF;
        END LOOP;
    END LOOP;
END
$$;

CREATE FUNCTION public.latchgate_note_snapshot() RETURNS trigger
    LANGUAGE plpgsql STABLE
    SET search_path TO '$user', 'public'
    AS $$
BEGIN
    PERFORM set_config('latchgate.snapshot', (SELECT revision FROM revision_clock)::text, true);
    RETURN NULL;
END
$$;

CREATE FUNCTION public.latchgate_orphan_usage() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO '$user', 'public'
    AS $$
BEGIN
    IF TG_TABLE_NAME = 'keys' THEN
        INSERT INTO usage_orphans (key_number) SELECT number FROM old_rows;
    ELSE
        INSERT INTO usage_orphans (tenant_number) SELECT number FROM old_rows;
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION public.latchgate_pieces(number bigint, key_id text, whole text) RETURNS text[]
    LANGUAGE sql IMMUTABLE STRICT COST 10000 PARALLEL SAFE
    AS $$
    SELECT array_agg((number >> 13) || piece) FROM (
        SELECT ' ' || substr(whole, place, size) AS piece
        FROM generate_series(1, 3) AS size CROSS JOIN generate_series(1, length(whole) - size + 1) AS place
        UNION
        SELECT '^' || left(key_id, size) FROM unnest('{1,2,3,4,6,8,12}'::integer[]) AS size WHERE size <= length(key_id)
    ) AS pieces
$$;

CREATE FUNCTION public.latchgate_pieces_sought(sought text, OUT in_text text[], OUT at_start text) RETURNS record
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
    SELECT (SELECT array_agg(DISTINCT ' ' || substr(lower(sought), place, least(3, length(sought))))
            FROM generate_series(1, greatest(length(lower(sought)) - 2, 1)) AS place),
           (SELECT '^' || left(sought, max(size)) FROM unnest('{1,2,3,4,6,8,12}'::integer[]) AS size
            WHERE size <= length(sought))
$$;

CREATE FUNCTION public.latchgate_record_changes() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO '$user', 'public'
    AS $_$
DECLARE
    taken bigint := latchgate_begin_change();
    touched text[] := '{}';
BEGIN
    IF TG_OP <> 'TRUNCATE' THEN
        EXECUTE format(
            'SELECT array_agg(id) FROM ('
            || CASE TG_OP
                WHEN 'INSERT' THEN 'SELECT DISTINCT %1$I::text AS id FROM new_rows'
                WHEN 'DELETE' THEN 'SELECT DISTINCT %1$I::text AS id FROM old_rows'
                ELSE 'SELECT %1$I::text AS id FROM new_rows UNION SELECT %1$I::text FROM old_rows'
            END || ' LIMIT 1001) AS few', TG_ARGV[1])
        INTO touched;
        IF touched IS NULL THEN
            RETURN NULL;
        END IF;
    END IF;
    IF cardinality(touched) BETWEEN 1 AND 1000 THEN
        INSERT INTO changes (revision, entity, id) SELECT taken, TG_ARGV[0], unnest(touched);
    ELSE
        INSERT INTO changes (revision, entity, id) VALUES (taken, 'all', '');
    END IF;
    PERFORM pg_notify('latchgate_changes', '');
    RETURN NULL;
END
$_$;

CREATE FUNCTION public.latchgate_record_reset() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO '$user', 'public'
    AS $$
DECLARE
    taken bigint := latchgate_begin_change();
    touched limit_resets := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    IF touched.holder = 'TENANT' THEN
        INSERT INTO changes (revision, entity, id) VALUES (taken, 'tenant', touched.holder_id);
    ELSE
        INSERT INTO changes (revision, entity, id)
        SELECT taken, 'key', key_id FROM keys WHERE lineage_id = touched.holder_id;
    END IF;
    PERFORM pg_notify('latchgate_changes', '');
    RETURN NULL;
END
$$;

CREATE FUNCTION public.latchgate_stamp() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO '$user', 'public'
    AS $$
BEGIN
    NEW.revision := latchgate_begin_change();
    NEW.update_time := clock_timestamp();
    RETURN NEW;
END
$$;

CREATE FUNCTION public.latchgate_take_back_quotas(buckets text[], starts date[], units bigint[], timelines text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO '$user', 'public'
    AS $$
DECLARE
    here text := latchgate_timeline();
    unspent record;
BEGIN
    FOR unspent IN
        SELECT * FROM unnest(buckets, starts, units, timelines) AS u (bucket, period_start, units, timeline)
        ORDER BY u.bucket COLLATE "C"
    LOOP
        -- What was lent in a history that a promotion cut off was never counted here.
        CONTINUE WHEN unspent.timeline <> here;
        UPDATE quota_grants AS q SET granted = q.granted - unspent.units
        WHERE q.bucket = unspent.bucket AND q.period_start = unspent.period_start;
    END LOOP;
END
$$;

CREATE FUNCTION public.latchgate_take_clock() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO '$user', 'public'
    AS $$
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

CREATE FUNCTION public.latchgate_timeline() RETURNS text
    LANGUAGE sql
    AS $$
    SELECT system_identifier || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM pg_control_system()
$$;

CREATE TABLE public.audit_events (
    sequence bigint NOT NULL,
    "time" timestamp with time zone NOT NULL,
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
    pepper_id text NOT NULL,
    hash bytea NOT NULL
);

CREATE TABLE public.changes (
    revision bigint NOT NULL,
    entity text NOT NULL,
    id text NOT NULL,
    commit_time timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT changes_entity_check CHECK ((entity = ANY (ARRAY['key'::text, 'tenant'::text, 'plan'::text, 'role'::text, 'import'::text, 'all'::text])))
);

CREATE TABLE public.changes_pruned (
    singleton boolean DEFAULT true NOT NULL,
    revision bigint NOT NULL,
    CONSTRAINT changes_pruned_singleton_check CHECK (singleton)
);

CREATE TABLE public.deployment (
    singleton boolean DEFAULT true NOT NULL,
    key_id_tag_key bytea NOT NULL,
    create_time timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT deployment_key_id_tag_key_check CHECK ((length(key_id_tag_key) = 32)),
    CONSTRAINT deployment_singleton_check CHECK (singleton)
);

CREATE TABLE public.imported_forms (
    form text NOT NULL,
    key_id text NOT NULL,
    update_time timestamp with time zone NOT NULL,
    revision bigint NOT NULL
);

CREATE TABLE public.key_last_uses (
    key_number bigint NOT NULL,
    tenant_id text NOT NULL,
    used boolean NOT NULL,
    "time" timestamp with time zone NOT NULL,
    hour timestamp with time zone NOT NULL,
    client_ip text NOT NULL,
    user_name text NOT NULL,
    user_agent text NOT NULL,
    busy_hour integer,
    busy_uses bigint,
    busy_before bigint,
    busy_step smallint
)
WITH (fillfactor='70');

CREATE TABLE public.key_requests (
    actor text NOT NULL,
    request_id uuid NOT NULL,
    key_id text NOT NULL,
    create_time timestamp with time zone DEFAULT now() NOT NULL,
    call bytea
);

CREATE TABLE public.key_roles (
    key_id text NOT NULL,
    "position" smallint NOT NULL,
    role_number bigint NOT NULL,
    role_id text NOT NULL,
    key_number bigint NOT NULL,
    tenant_id text NOT NULL
);

CREATE TABLE public.key_secrets (
    key_id text NOT NULL,
    profile text NOT NULL,
    pepper_id text NOT NULL,
    phc text NOT NULL,
    tag bytea,
    CONSTRAINT key_secrets_profile_check CHECK ((profile = ANY (ARRAY['generated'::text, 'imported'::text, 'foreign'::text, 'digest'::text])))
);

CREATE TABLE public.key_sources (
    key_number bigint NOT NULL,
    client_ip text NOT NULL,
    first_time timestamp with time zone NOT NULL,
    last_time timestamp with time zone NOT NULL,
    count bigint NOT NULL
)
WITH (fillfactor='70');

CREATE TABLE public.key_tags (
    name text NOT NULL,
    value text NOT NULL,
    number bigint NOT NULL,
    tenant_id text NOT NULL
);

CREATE TABLE public.key_texts (
    number bigint NOT NULL,
    tenant_id text NOT NULL,
    key_id text NOT NULL,
    text text NOT NULL
);

CREATE TABLE public.key_usage (
    key_number bigint NOT NULL,
    hour timestamp with time zone NOT NULL,
    outcome smallint NOT NULL,
    count bigint NOT NULL
)
PARTITION BY RANGE (hour);

CREATE TABLE public.key_uses (
    key_number bigint NOT NULL,
    "time" timestamp with time zone NOT NULL,
    outcome smallint NOT NULL,
    client_ip text NOT NULL,
    user_name text NOT NULL,
    method text NOT NULL,
    host text NOT NULL,
    path text NOT NULL,
    user_agent text NOT NULL
)
PARTITION BY RANGE ("time");

CREATE TABLE public.keys (
    key_id text NOT NULL,
    number bigint NOT NULL,
    tenant_id text NOT NULL,
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
    expire_time timestamp with time zone,
    expired boolean DEFAULT false NOT NULL,
    rotate_by_time timestamp with time zone,
    limits jsonb NOT NULL,
    state text NOT NULL,
    create_time timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    created_by text NOT NULL,
    update_time timestamp with time zone NOT NULL,
    revoke_time timestamp with time zone,
    revocation_reason text DEFAULT ''::text NOT NULL,
    lineage_id text NOT NULL,
    predecessor_key_id text DEFAULT ''::text NOT NULL,
    successor_key_id text DEFAULT ''::text NOT NULL,
    revision bigint NOT NULL,
    CONSTRAINT keys_state_check CHECK ((state = ANY (ARRAY['ACTIVE'::text, 'DISABLED'::text, 'REVOKED'::text])))
);

ALTER TABLE public.keys ALTER COLUMN number ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.keys_number_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.limit_resets (
    holder text NOT NULL,
    holder_id text NOT NULL,
    name text NOT NULL,
    spent bigint NOT NULL,
    update_time timestamp with time zone NOT NULL,
    revision bigint NOT NULL,
    CONSTRAINT limit_resets_holder_check CHECK ((holder = ANY (ARRAY['KEY'::text, 'TENANT'::text]))),
    CONSTRAINT limit_resets_spent_check CHECK ((spent >= 0))
);

CREATE TABLE public.plans (
    plan_id text NOT NULL,
    display_name text NOT NULL,
    capabilities text[] NOT NULL,
    key_limits jsonb NOT NULL,
    tenant_limits jsonb NOT NULL,
    max_keys integer NOT NULL,
    create_time timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    update_time timestamp with time zone NOT NULL,
    revision bigint NOT NULL,
    CONSTRAINT plans_max_keys_check CHECK ((max_keys >= 0))
);

CREATE TABLE public.quota_grants (
    bucket text NOT NULL COLLATE pg_catalog."C",
    period_start date NOT NULL,
    granted bigint NOT NULL,
    CONSTRAINT quota_grants_granted_check CHECK ((granted >= 0))
);

CREATE SEQUENCE public.replica_beats
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE public.replicas (
    replica_id text NOT NULL,
    applied_revision bigint NOT NULL,
    lease_seconds double precision NOT NULL,
    beat bigint DEFAULT nextval('public.replica_beats'::regclass) NOT NULL,
    CONSTRAINT replicas_lease_seconds_check CHECK ((lease_seconds > (0)::double precision))
);

CREATE TABLE public.revision_clock (
    singleton boolean DEFAULT true NOT NULL,
    revision bigint NOT NULL,
    CONSTRAINT revision_clock_singleton_check CHECK (singleton)
);

CREATE TABLE public.roles (
    number bigint NOT NULL,
    role_id text NOT NULL,
    tenant_id text,
    display_name text NOT NULL,
    description text NOT NULL,
    permissions text[] NOT NULL,
    claims jsonb NOT NULL,
    allow_act_as boolean NOT NULL,
    create_time timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    update_time timestamp with time zone NOT NULL,
    revision bigint NOT NULL
);

ALTER TABLE public.roles ALTER COLUMN number ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.roles_number_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.schema_migrations (
    version integer NOT NULL,
    name text NOT NULL,
    digest text NOT NULL,
    apply_time timestamp with time zone DEFAULT now() NOT NULL,
    compatible_from integer
);

CREATE TABLE public.tenant_usage (
    tenant_number bigint NOT NULL,
    hour timestamp with time zone NOT NULL,
    outcome smallint NOT NULL,
    count bigint NOT NULL
)
PARTITION BY RANGE (hour);

CREATE TABLE public.tenants (
    tenant_id text NOT NULL,
    display_name text NOT NULL,
    enabled boolean DEFAULT true NOT NULL,
    plan_id text,
    limits jsonb NOT NULL,
    tags jsonb NOT NULL,
    create_time timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    update_time timestamp with time zone NOT NULL,
    revision bigint NOT NULL,
    number bigint NOT NULL,
    CONSTRAINT tenants_tenant_id_check CHECK ((tenant_id ~ '^[a-z][a-z0-9-]{0,62}$'::text))
);

ALTER TABLE public.tenants ALTER COLUMN number ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.tenants_number_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.trusted_timeline (
    singleton boolean DEFAULT true NOT NULL,
    timeline text NOT NULL,
    CONSTRAINT trusted_timeline_singleton_check CHECK (singleton)
);

CREATE TABLE public.usage_orphans (
    key_number bigint,
    tenant_number bigint,
    delete_time timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.usage_writers (
    writer_id text NOT NULL,
    sequence bigint NOT NULL,
    update_time timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE ONLY public.audit_events
    ADD CONSTRAINT audit_events_pkey PRIMARY KEY (sequence);

ALTER TABLE ONLY public.changes_pruned
    ADD CONSTRAINT changes_pruned_pkey PRIMARY KEY (singleton);

ALTER TABLE ONLY public.deployment
    ADD CONSTRAINT deployment_pkey PRIMARY KEY (singleton);

ALTER TABLE ONLY public.imported_forms
    ADD CONSTRAINT imported_forms_key_id_key UNIQUE (key_id);

ALTER TABLE ONLY public.imported_forms
    ADD CONSTRAINT imported_forms_pkey PRIMARY KEY (form);

ALTER TABLE ONLY public.key_last_uses
    ADD CONSTRAINT key_last_uses_pkey PRIMARY KEY (key_number);

ALTER TABLE ONLY public.key_requests
    ADD CONSTRAINT key_requests_pkey PRIMARY KEY (actor, request_id);

ALTER TABLE ONLY public.key_roles
    ADD CONSTRAINT key_roles_pkey PRIMARY KEY (key_id, "position");

ALTER TABLE ONLY public.key_roles
    ADD CONSTRAINT key_roles_role_number_key_number_tenant_id_key UNIQUE (role_number, key_number, tenant_id);

ALTER TABLE ONLY public.key_secrets
    ADD CONSTRAINT key_secrets_pkey PRIMARY KEY (key_id);

ALTER TABLE ONLY public.key_sources
    ADD CONSTRAINT key_sources_pkey PRIMARY KEY (key_number, client_ip);

ALTER TABLE ONLY public.key_tags
    ADD CONSTRAINT key_tags_pkey PRIMARY KEY (name, value, number, tenant_id);

ALTER TABLE ONLY public.key_texts
    ADD CONSTRAINT key_texts_pkey PRIMARY KEY (number);

ALTER TABLE ONLY public.key_usage
    ADD CONSTRAINT key_usage_pkey PRIMARY KEY (key_number, hour, outcome);

ALTER TABLE ONLY public.keys
    ADD CONSTRAINT keys_number_key UNIQUE (number);

ALTER TABLE ONLY public.keys
    ADD CONSTRAINT keys_pkey PRIMARY KEY (key_id);

ALTER TABLE ONLY public.limit_resets
    ADD CONSTRAINT limit_resets_pkey PRIMARY KEY (holder, holder_id, name);

ALTER TABLE ONLY public.plans
    ADD CONSTRAINT plans_pkey PRIMARY KEY (plan_id);

ALTER TABLE ONLY public.quota_grants
    ADD CONSTRAINT quota_grants_pkey PRIMARY KEY (bucket, period_start);

ALTER TABLE ONLY public.replicas
    ADD CONSTRAINT replicas_pkey PRIMARY KEY (replica_id);

ALTER TABLE ONLY public.revision_clock
    ADD CONSTRAINT revision_clock_pkey PRIMARY KEY (singleton);

ALTER TABLE ONLY public.roles
    ADD CONSTRAINT roles_number_role_id_key UNIQUE (number, role_id);

ALTER TABLE ONLY public.roles
    ADD CONSTRAINT roles_pkey PRIMARY KEY (number);

ALTER TABLE ONLY public.roles
    ADD CONSTRAINT roles_tenant_id_role_id_key UNIQUE NULLS NOT DISTINCT (tenant_id, role_id);

ALTER TABLE ONLY public.schema_migrations
    ADD CONSTRAINT schema_migrations_pkey PRIMARY KEY (version);

ALTER TABLE ONLY public.tenant_usage
    ADD CONSTRAINT tenant_usage_pkey PRIMARY KEY (tenant_number, hour, outcome);

ALTER TABLE ONLY public.tenants
    ADD CONSTRAINT tenants_number_key UNIQUE (number);

ALTER TABLE ONLY public.tenants
    ADD CONSTRAINT tenants_pkey PRIMARY KEY (tenant_id);

ALTER TABLE ONLY public.trusted_timeline
    ADD CONSTRAINT trusted_timeline_pkey PRIMARY KEY (singleton);

ALTER TABLE ONLY public.usage_writers
    ADD CONSTRAINT usage_writers_pkey PRIMARY KEY (writer_id);

CREATE INDEX audit_events_actor ON public.audit_events USING btree (actor, "time", sequence);

CREATE INDEX audit_events_target ON public.audit_events USING btree (target_id, "time", sequence);

CREATE INDEX audit_events_tenant ON public.audit_events USING btree (tenant_id, "time", sequence);

CREATE INDEX audit_events_time ON public.audit_events USING btree ("time", sequence);

CREATE INDEX changes_commit_time ON public.changes USING btree (commit_time);

CREATE INDEX changes_revision ON public.changes USING btree (revision);

CREATE INDEX imported_forms_revision ON public.imported_forms USING btree (revision, form);

CREATE INDEX key_last_uses_busy ON public.key_last_uses USING btree (busy_hour, busy_step) WHERE (busy_hour IS NOT NULL);

CREATE INDEX key_last_uses_busy_tenant ON public.key_last_uses USING btree (tenant_id, busy_hour, ((- busy_step))) WHERE (busy_hour IS NOT NULL);

CREATE INDEX key_last_uses_hour ON public.key_last_uses USING btree (hour, key_number);

CREATE INDEX key_last_uses_tenant ON public.key_last_uses USING btree (tenant_id, hour, key_number);

CREATE INDEX key_roles_listed ON public.key_roles USING btree (role_id, key_number, tenant_id);

CREATE INDEX key_texts_pieces ON public.key_texts USING gin (public.latchgate_pieces(number, key_id, text));

CREATE INDEX key_texts_tenant ON public.key_texts USING btree (tenant_id, number);

CREATE INDEX key_uses_latest ON ONLY public.key_uses USING btree (key_number, "time" DESC);

CREATE INDEX keys_environment ON public.keys USING btree (environment, number, tenant_id, state) WHERE (environment <> ''::text);

CREATE INDEX keys_expire_time ON public.keys USING btree (expire_time, number, tenant_id, state) WHERE (expire_time IS NOT NULL);

CREATE INDEX keys_lineage ON public.keys USING btree (lineage_id);

CREATE INDEX keys_owner ON public.keys USING btree (owner, number, tenant_id, state, environment) WHERE (owner <> ''::text);

CREATE INDEX keys_rotate_by_time ON public.keys USING btree (rotate_by_time, number, tenant_id, state) WHERE (rotate_by_time IS NOT NULL);

CREATE INDEX keys_state ON public.keys USING btree (state, number, tenant_id);

CREATE INDEX keys_tenant ON public.keys USING btree (tenant_id, number);

CREATE INDEX quota_grants_period ON public.quota_grants USING btree (period_start);

CREATE INDEX tenants_plan ON public.tenants USING btree (plan_id) WHERE (plan_id IS NOT NULL);

CREATE INDEX usage_orphans_delete_time ON public.usage_orphans USING btree (delete_time);

CREATE STATISTICS public.key_tags_pairs ON name, value FROM public.key_tags;

CREATE STATISTICS public.keys_environment_state ON environment, state FROM public.keys;

CREATE STATISTICS public.keys_owner_environment ON owner, environment FROM public.keys;

CREATE STATISTICS public.keys_owner_state ON owner, state FROM public.keys;

CREATE STATISTICS public.keys_tenant_environment ON tenant_id, environment FROM public.keys;

CREATE STATISTICS public.keys_tenant_owner ON tenant_id, owner FROM public.keys;

CREATE TRIGGER latchgate_1_note_snapshot BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON public.imported_forms FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_note_snapshot();

ALTER TABLE public.imported_forms ENABLE ALWAYS TRIGGER latchgate_1_note_snapshot;

CREATE TRIGGER latchgate_1_note_snapshot BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON public.key_roles FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_note_snapshot();

ALTER TABLE public.key_roles ENABLE ALWAYS TRIGGER latchgate_1_note_snapshot;

CREATE TRIGGER latchgate_1_note_snapshot BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON public.key_secrets FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_note_snapshot();

ALTER TABLE public.key_secrets ENABLE ALWAYS TRIGGER latchgate_1_note_snapshot;

CREATE TRIGGER latchgate_1_note_snapshot BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON public.keys FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_note_snapshot();

ALTER TABLE public.keys ENABLE ALWAYS TRIGGER latchgate_1_note_snapshot;

CREATE TRIGGER latchgate_1_note_snapshot BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON public.limit_resets FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_note_snapshot();

ALTER TABLE public.limit_resets ENABLE ALWAYS TRIGGER latchgate_1_note_snapshot;

CREATE TRIGGER latchgate_1_note_snapshot BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON public.plans FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_note_snapshot();

ALTER TABLE public.plans ENABLE ALWAYS TRIGGER latchgate_1_note_snapshot;

CREATE TRIGGER latchgate_1_note_snapshot BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON public.roles FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_note_snapshot();

ALTER TABLE public.roles ENABLE ALWAYS TRIGGER latchgate_1_note_snapshot;

CREATE TRIGGER latchgate_1_note_snapshot BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON public.tenants FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_note_snapshot();

ALTER TABLE public.tenants ENABLE ALWAYS TRIGGER latchgate_1_note_snapshot;

CREATE TRIGGER latchgate_2_take_clock BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON public.imported_forms FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_take_clock();

ALTER TABLE public.imported_forms ENABLE ALWAYS TRIGGER latchgate_2_take_clock;

CREATE TRIGGER latchgate_2_take_clock BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON public.key_roles FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_take_clock();

ALTER TABLE public.key_roles ENABLE ALWAYS TRIGGER latchgate_2_take_clock;

CREATE TRIGGER latchgate_2_take_clock BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON public.key_secrets FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_take_clock();

ALTER TABLE public.key_secrets ENABLE ALWAYS TRIGGER latchgate_2_take_clock;

CREATE TRIGGER latchgate_2_take_clock BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON public.keys FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_take_clock();

ALTER TABLE public.keys ENABLE ALWAYS TRIGGER latchgate_2_take_clock;

CREATE TRIGGER latchgate_2_take_clock BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON public.limit_resets FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_take_clock();

ALTER TABLE public.limit_resets ENABLE ALWAYS TRIGGER latchgate_2_take_clock;

CREATE TRIGGER latchgate_2_take_clock BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON public.plans FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_take_clock();

ALTER TABLE public.plans ENABLE ALWAYS TRIGGER latchgate_2_take_clock;

CREATE TRIGGER latchgate_2_take_clock BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON public.roles FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_take_clock();

ALTER TABLE public.roles ENABLE ALWAYS TRIGGER latchgate_2_take_clock;

CREATE TRIGGER latchgate_2_take_clock BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON public.tenants FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_take_clock();

ALTER TABLE public.tenants ENABLE ALWAYS TRIGGER latchgate_2_take_clock;

CREATE TRIGGER latchgate_3_record_delete AFTER DELETE ON public.imported_forms REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('import', 'key_id');

ALTER TABLE public.imported_forms ENABLE ALWAYS TRIGGER latchgate_3_record_delete;

CREATE TRIGGER latchgate_3_record_delete AFTER DELETE ON public.key_roles REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('key', 'key_id');

ALTER TABLE public.key_roles ENABLE ALWAYS TRIGGER latchgate_3_record_delete;

CREATE TRIGGER latchgate_3_record_delete AFTER DELETE ON public.key_secrets REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('key', 'key_id');

ALTER TABLE public.key_secrets ENABLE ALWAYS TRIGGER latchgate_3_record_delete;

CREATE TRIGGER latchgate_3_record_delete AFTER DELETE ON public.keys REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('key', 'key_id');

ALTER TABLE public.keys ENABLE ALWAYS TRIGGER latchgate_3_record_delete;

CREATE TRIGGER latchgate_3_record_delete AFTER DELETE ON public.plans REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('plan', 'plan_id');

ALTER TABLE public.plans ENABLE ALWAYS TRIGGER latchgate_3_record_delete;

CREATE TRIGGER latchgate_3_record_delete AFTER DELETE ON public.roles REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('role', 'number');

ALTER TABLE public.roles ENABLE ALWAYS TRIGGER latchgate_3_record_delete;

CREATE TRIGGER latchgate_3_record_delete AFTER DELETE ON public.tenants REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('tenant', 'tenant_id');

ALTER TABLE public.tenants ENABLE ALWAYS TRIGGER latchgate_3_record_delete;

CREATE TRIGGER latchgate_3_record_insert AFTER INSERT ON public.imported_forms REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('import', 'key_id');

ALTER TABLE public.imported_forms ENABLE ALWAYS TRIGGER latchgate_3_record_insert;

CREATE TRIGGER latchgate_3_record_insert AFTER INSERT ON public.key_roles REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('key', 'key_id');

ALTER TABLE public.key_roles ENABLE ALWAYS TRIGGER latchgate_3_record_insert;

CREATE TRIGGER latchgate_3_record_insert AFTER INSERT ON public.key_secrets REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('key', 'key_id');

ALTER TABLE public.key_secrets ENABLE ALWAYS TRIGGER latchgate_3_record_insert;

CREATE TRIGGER latchgate_3_record_insert AFTER INSERT ON public.keys REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('key', 'key_id');

ALTER TABLE public.keys ENABLE ALWAYS TRIGGER latchgate_3_record_insert;

CREATE TRIGGER latchgate_3_record_insert AFTER INSERT ON public.plans REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('plan', 'plan_id');

ALTER TABLE public.plans ENABLE ALWAYS TRIGGER latchgate_3_record_insert;

CREATE TRIGGER latchgate_3_record_insert AFTER INSERT ON public.roles REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('role', 'number');

ALTER TABLE public.roles ENABLE ALWAYS TRIGGER latchgate_3_record_insert;

CREATE TRIGGER latchgate_3_record_insert AFTER INSERT ON public.tenants REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('tenant', 'tenant_id');

ALTER TABLE public.tenants ENABLE ALWAYS TRIGGER latchgate_3_record_insert;

CREATE TRIGGER latchgate_3_record_reset AFTER INSERT OR DELETE OR UPDATE ON public.limit_resets FOR EACH ROW EXECUTE FUNCTION public.latchgate_record_reset();

ALTER TABLE public.limit_resets ENABLE ALWAYS TRIGGER latchgate_3_record_reset;

CREATE TRIGGER latchgate_3_record_truncate AFTER TRUNCATE ON public.imported_forms FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('import', 'key_id');

ALTER TABLE public.imported_forms ENABLE ALWAYS TRIGGER latchgate_3_record_truncate;

CREATE TRIGGER latchgate_3_record_truncate AFTER TRUNCATE ON public.key_roles FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('key', 'key_id');

ALTER TABLE public.key_roles ENABLE ALWAYS TRIGGER latchgate_3_record_truncate;

CREATE TRIGGER latchgate_3_record_truncate AFTER TRUNCATE ON public.key_secrets FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('key', 'key_id');

ALTER TABLE public.key_secrets ENABLE ALWAYS TRIGGER latchgate_3_record_truncate;

CREATE TRIGGER latchgate_3_record_truncate AFTER TRUNCATE ON public.keys FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('key', 'key_id');

ALTER TABLE public.keys ENABLE ALWAYS TRIGGER latchgate_3_record_truncate;

CREATE TRIGGER latchgate_3_record_truncate AFTER TRUNCATE ON public.limit_resets FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('', '');

ALTER TABLE public.limit_resets ENABLE ALWAYS TRIGGER latchgate_3_record_truncate;

CREATE TRIGGER latchgate_3_record_truncate AFTER TRUNCATE ON public.plans FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('plan', 'plan_id');

ALTER TABLE public.plans ENABLE ALWAYS TRIGGER latchgate_3_record_truncate;

CREATE TRIGGER latchgate_3_record_truncate AFTER TRUNCATE ON public.roles FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('role', 'number');

ALTER TABLE public.roles ENABLE ALWAYS TRIGGER latchgate_3_record_truncate;

CREATE TRIGGER latchgate_3_record_truncate AFTER TRUNCATE ON public.tenants FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('tenant', 'tenant_id');

ALTER TABLE public.tenants ENABLE ALWAYS TRIGGER latchgate_3_record_truncate;

CREATE TRIGGER latchgate_3_record_update AFTER UPDATE ON public.imported_forms REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('import', 'key_id');

ALTER TABLE public.imported_forms ENABLE ALWAYS TRIGGER latchgate_3_record_update;

CREATE TRIGGER latchgate_3_record_update AFTER UPDATE ON public.key_roles REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('key', 'key_id');

ALTER TABLE public.key_roles ENABLE ALWAYS TRIGGER latchgate_3_record_update;

CREATE TRIGGER latchgate_3_record_update AFTER UPDATE ON public.key_secrets REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('key', 'key_id');

ALTER TABLE public.key_secrets ENABLE ALWAYS TRIGGER latchgate_3_record_update;

CREATE TRIGGER latchgate_3_record_update AFTER UPDATE ON public.keys REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('key', 'key_id');

ALTER TABLE public.keys ENABLE ALWAYS TRIGGER latchgate_3_record_update;

CREATE TRIGGER latchgate_3_record_update AFTER UPDATE ON public.plans REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('plan', 'plan_id');

ALTER TABLE public.plans ENABLE ALWAYS TRIGGER latchgate_3_record_update;

CREATE TRIGGER latchgate_3_record_update AFTER UPDATE ON public.roles REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('role', 'number');

ALTER TABLE public.roles ENABLE ALWAYS TRIGGER latchgate_3_record_update;

CREATE TRIGGER latchgate_3_record_update AFTER UPDATE ON public.tenants REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_record_changes('tenant', 'tenant_id');

ALTER TABLE public.tenants ENABLE ALWAYS TRIGGER latchgate_3_record_update;

CREATE TRIGGER latchgate_forget_limits AFTER DELETE ON public.tenants FOR EACH ROW EXECUTE FUNCTION public.latchgate_forget_tenant_limits();

ALTER TABLE public.tenants ENABLE ALWAYS TRIGGER latchgate_forget_limits;

CREATE TRIGGER latchgate_list_changed AFTER UPDATE ON public.keys FOR EACH ROW WHEN (((((((old.number IS DISTINCT FROM new.number) OR (old.tenant_id IS DISTINCT FROM new.tenant_id)) OR (old.key_id IS DISTINCT FROM new.key_id)) OR (old.tags IS DISTINCT FROM new.tags)) OR (old.display_name IS DISTINCT FROM new.display_name)) OR (old.description IS DISTINCT FROM new.description))) EXECUTE FUNCTION public.latchgate_list_changed_key();

ALTER TABLE public.keys ENABLE ALWAYS TRIGGER latchgate_list_changed;

CREATE TRIGGER latchgate_list_gone AFTER DELETE ON public.keys REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_list_keys();

ALTER TABLE public.keys ENABLE ALWAYS TRIGGER latchgate_list_gone;

CREATE TRIGGER latchgate_list_new AFTER INSERT ON public.keys REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_list_keys();

ALTER TABLE public.keys ENABLE ALWAYS TRIGGER latchgate_list_new;

CREATE TRIGGER latchgate_list_none AFTER TRUNCATE ON public.keys FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_list_keys();

ALTER TABLE public.keys ENABLE ALWAYS TRIGGER latchgate_list_none;

CREATE TRIGGER latchgate_list_role BEFORE INSERT OR UPDATE ON public.key_roles FOR EACH ROW EXECUTE FUNCTION public.latchgate_list_role();

ALTER TABLE public.key_roles ENABLE ALWAYS TRIGGER latchgate_list_role;

CREATE TRIGGER latchgate_list_unused AFTER INSERT ON public.keys REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_list_unused();

ALTER TABLE public.keys ENABLE ALWAYS TRIGGER latchgate_list_unused;

CREATE TRIGGER latchgate_orphan_usage AFTER DELETE ON public.keys REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_orphan_usage();

ALTER TABLE public.keys ENABLE ALWAYS TRIGGER latchgate_orphan_usage;

CREATE TRIGGER latchgate_orphan_usage AFTER DELETE ON public.tenants REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION public.latchgate_orphan_usage();

ALTER TABLE public.tenants ENABLE ALWAYS TRIGGER latchgate_orphan_usage;

CREATE TRIGGER latchgate_stamp BEFORE INSERT OR UPDATE ON public.imported_forms FOR EACH ROW EXECUTE FUNCTION public.latchgate_stamp();

ALTER TABLE public.imported_forms ENABLE ALWAYS TRIGGER latchgate_stamp;

CREATE TRIGGER latchgate_stamp BEFORE INSERT OR UPDATE ON public.keys FOR EACH ROW EXECUTE FUNCTION public.latchgate_stamp();

ALTER TABLE public.keys ENABLE ALWAYS TRIGGER latchgate_stamp;

CREATE TRIGGER latchgate_stamp BEFORE INSERT OR UPDATE ON public.limit_resets FOR EACH ROW EXECUTE FUNCTION public.latchgate_stamp();

ALTER TABLE public.limit_resets ENABLE ALWAYS TRIGGER latchgate_stamp;

CREATE TRIGGER latchgate_stamp BEFORE INSERT OR UPDATE ON public.plans FOR EACH ROW EXECUTE FUNCTION public.latchgate_stamp();

ALTER TABLE public.plans ENABLE ALWAYS TRIGGER latchgate_stamp;

CREATE TRIGGER latchgate_stamp BEFORE INSERT OR UPDATE ON public.roles FOR EACH ROW EXECUTE FUNCTION public.latchgate_stamp();

ALTER TABLE public.roles ENABLE ALWAYS TRIGGER latchgate_stamp;

CREATE TRIGGER latchgate_stamp BEFORE INSERT OR UPDATE ON public.tenants FOR EACH ROW EXECUTE FUNCTION public.latchgate_stamp();

ALTER TABLE public.tenants ENABLE ALWAYS TRIGGER latchgate_stamp;

ALTER TABLE ONLY public.imported_forms
    ADD CONSTRAINT imported_forms_key_id_fkey FOREIGN KEY (key_id) REFERENCES public.keys(key_id) ON DELETE CASCADE;

ALTER TABLE ONLY public.key_roles
    ADD CONSTRAINT key_roles_key_id_fkey FOREIGN KEY (key_id) REFERENCES public.keys(key_id) ON DELETE CASCADE;

ALTER TABLE ONLY public.key_roles
    ADD CONSTRAINT key_roles_role_number_role_id_fkey FOREIGN KEY (role_number, role_id) REFERENCES public.roles(number, role_id) ON UPDATE CASCADE;

ALTER TABLE ONLY public.key_secrets
    ADD CONSTRAINT key_secrets_key_id_fkey FOREIGN KEY (key_id) REFERENCES public.keys(key_id) ON DELETE CASCADE;

ALTER TABLE ONLY public.keys
    ADD CONSTRAINT keys_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(tenant_id) ON DELETE CASCADE;

ALTER TABLE ONLY public.roles
    ADD CONSTRAINT roles_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(tenant_id) ON DELETE CASCADE;

ALTER TABLE ONLY public.tenants
    ADD CONSTRAINT tenants_plan_id_fkey FOREIGN KEY (plan_id) REFERENCES public.plans(plan_id);
