-- What keys are used for. No decision table, and without foreign keys: writing here takes neither the revision clock nor
-- a lock on a key. Rows name keys and tenants by their numbers, which no later key or tenant ever gets again.

ALTER TABLE tenants ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY UNIQUE;

-- Up to which batch each process has written, so that repeating one whose commit was not confirmed counts nothing twice.
CREATE TABLE usage_writers (
    writer_id text PRIMARY KEY,
    sequence bigint NOT NULL,
    update_time timestamptz NOT NULL DEFAULT now()
);

-- Decisions counted by the hour that they were made in. outcome: 0 for ALLOW, else the number of the DenialReason.
-- Both have a partition for each month, which latchgate_make_usage_partitions makes ahead of time.
CREATE TABLE key_usage (
    key_number bigint NOT NULL,
    hour timestamptz NOT NULL,
    outcome smallint NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (key_number, hour, outcome)
) PARTITION BY RANGE (hour);

CREATE TABLE tenant_usage (
    tenant_number bigint NOT NULL,
    hour timestamptz NOT NULL,
    outcome smallint NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (tenant_number, hour, outcome)
) PARTITION BY RANGE (hour);

-- Decisions one by one, trimmed to the latest of each key; partitioned likewise.
CREATE TABLE key_uses (
    key_number bigint NOT NULL,
    time timestamptz NOT NULL,
    outcome smallint NOT NULL,
    client_ip text NOT NULL,
    user_name text NOT NULL,
    method text NOT NULL,
    host text NOT NULL,
    path text NOT NULL,
    user_agent text NOT NULL
) PARTITION BY RANGE (time);
CREATE INDEX key_uses_latest ON key_uses (key_number, time DESC);

-- Each key's latest use or, before the first, its making. `hour` is that of `time`, to list keys by: an index on `time`
-- itself would have to be written with every use.
CREATE TABLE key_last_uses (
    key_number bigint PRIMARY KEY,
    tenant_id text NOT NULL,
    used boolean NOT NULL,
    time timestamptz NOT NULL,
    hour timestamptz NOT NULL,
    client_ip text NOT NULL,
    user_name text NOT NULL,
    user_agent text NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX key_last_uses_hour ON key_last_uses (hour, key_number);
CREATE INDEX key_last_uses_tenant ON key_last_uses (tenant_id, hour, key_number);
INSERT INTO key_last_uses (key_number, tenant_id, used, time, hour, client_ip, user_name, user_agent)
SELECT number, tenant_id, false, create_time, date_trunc('hour', create_time), '', '', '' FROM keys;

CREATE FUNCTION latchgate_list_unused() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO key_last_uses (key_number, tenant_id, used, time, hour, client_ip, user_name, user_agent)
    SELECT number, tenant_id, false, create_time, date_trunc('hour', create_time), '', '', '' FROM new_rows;
    RETURN NULL;
END
$$;
CREATE TRIGGER latchgate_list_unused AFTER INSERT ON keys REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION latchgate_list_unused();
ALTER TABLE keys ENABLE ALWAYS TRIGGER latchgate_list_unused;

-- The addresses that a key was used from, trimmed to the most recent ones.
CREATE TABLE key_sources (
    key_number bigint NOT NULL,
    client_ip text NOT NULL,
    first_time timestamptz NOT NULL,
    last_time timestamptz NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (key_number, client_ip)
) WITH (fillfactor = 70);

-- Keys and tenants that are gone, whose usage is still to be removed. Deleting a key only adds a row here: removing the
-- usage at once could wait for a process that is writing it, while everybody waits for the revision clock.
CREATE TABLE usage_orphans (
    key_number bigint,
    tenant_number bigint,
    delete_time timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX usage_orphans_delete_time ON usage_orphans (delete_time);

CREATE FUNCTION latchgate_orphan_usage() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_TABLE_NAME = 'keys' THEN
        INSERT INTO usage_orphans (key_number) SELECT number FROM old_rows;
    ELSE
        INSERT INTO usage_orphans (tenant_number) SELECT number FROM old_rows;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER latchgate_orphan_usage AFTER DELETE ON keys REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION latchgate_orphan_usage();
CREATE TRIGGER latchgate_orphan_usage AFTER DELETE ON tenants REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION latchgate_orphan_usage();
ALTER TABLE keys ENABLE ALWAYS TRIGGER latchgate_orphan_usage;
ALTER TABLE tenants ENABLE ALWAYS TRIGGER latchgate_orphan_usage;

-- Makes the partitions of last month, this one and the two after it, where they are missing. With the rights of the
-- tables' owner, so that a server that may not change the schema can call it; it can do no harm.
CREATE FUNCTION latchgate_make_usage_partitions() RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT SET timezone = 'UTC' AS $$
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

-- Drops the partitions that ended before the counts and single decisions that are to be kept began.
CREATE FUNCTION latchgate_drop_usage_partitions(counts_from timestamptz, uses_from timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT SET timezone = 'UTC' AS $$
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
$$;
