-- What has been used of quotas, and what administrators set limits back to.

-- Which limits were set back. It is a decision table: a record holds the resets of its limits.
CREATE TABLE limit_resets (
    holder text NOT NULL CHECK (holder IN ('KEY', 'TENANT')),
    -- The first key of a lineage, or a tenant. No foreign key: a lineage outlives its first key.
    holder_id text NOT NULL,
    name text NOT NULL,
    -- How much counts as taken since.
    spent bigint NOT NULL CHECK (spent >= 0),
    update_time timestamptz NOT NULL,
    revision bigint NOT NULL,
    PRIMARY KEY (holder, holder_id, name)
);
CREATE INDEX keys_lineage ON keys (lineage_id);

-- Evicts the records that a reset concerns.
CREATE FUNCTION latchgate_record_reset() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
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

CREATE TRIGGER latchgate_1_note_snapshot BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON limit_resets
    FOR EACH STATEMENT EXECUTE FUNCTION latchgate_note_snapshot();
CREATE TRIGGER latchgate_2_take_clock BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON limit_resets
    FOR EACH STATEMENT EXECUTE FUNCTION latchgate_take_clock();
CREATE TRIGGER latchgate_3_record_reset AFTER INSERT OR UPDATE OR DELETE ON limit_resets
    FOR EACH ROW EXECUTE FUNCTION latchgate_record_reset();
CREATE TRIGGER latchgate_3_record_truncate AFTER TRUNCATE ON limit_resets
    FOR EACH STATEMENT EXECUTE FUNCTION latchgate_record_changes('', '');
CREATE TRIGGER latchgate_stamp BEFORE INSERT OR UPDATE ON limit_resets
    FOR EACH ROW EXECUTE FUNCTION latchgate_stamp();
ALTER TABLE limit_resets ENABLE ALWAYS TRIGGER latchgate_1_note_snapshot;
ALTER TABLE limit_resets ENABLE ALWAYS TRIGGER latchgate_2_take_clock;
ALTER TABLE limit_resets ENABLE ALWAYS TRIGGER latchgate_3_record_reset;
ALTER TABLE limit_resets ENABLE ALWAYS TRIGGER latchgate_3_record_truncate;
ALTER TABLE limit_resets ENABLE ALWAYS TRIGGER latchgate_stamp;

-- How much of each quota is spent, or lent to a process that may spend it. No decision table: verification writes here.
CREATE TABLE quota_grants (
    -- Holder, its id, the quota's name and the revision of its latest reset; see core/charging.py.
    bucket text COLLATE "C" NOT NULL,
    -- The first day of the period in UTC; -infinity for a lifetime.
    period_start date NOT NULL,
    granted bigint NOT NULL CHECK (granted >= 0),
    PRIMARY KEY (bucket, period_start)
);
CREATE INDEX quota_grants_period ON quota_grants (period_start);

-- Lends portions of quotas, each at least its least or nothing, and never more than the quota in all. Beyond what waiting
-- calls are due, a portion is at most half of what would be each process's share of the rest: towards the end portions get
-- small, so that none lies idle at one process while another has to refuse. The database's clock says which period it is.
-- Rows are locked in the order of their buckets, so that no two of these wait for each other.
CREATE FUNCTION latchgate_lend_quotas(
    buckets text[], periods text[], limits bigint[], spents bigint[], reset_times double precision[], leasts bigint[],
    dues bigint[], wants bigint[]
) RETURNS TABLE (place bigint, units bigint, left_over bigint, seconds_left double precision, starts date)
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
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

-- Takes back what a process does not spend of its portions.
CREATE FUNCTION latchgate_take_back_quotas(buckets text[], starts date[], units bigint[], timelines text[])
RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
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

-- A tenant that is made anew under an old name begins with whole limits.
CREATE FUNCTION latchgate_forget_tenant_limits() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM limit_resets WHERE holder = 'TENANT' AND holder_id = OLD.tenant_id;
    DELETE FROM quota_grants
    WHERE bucket >= 'tenant:' || OLD.tenant_id || ':' AND bucket < 'tenant:' || OLD.tenant_id || ';';
    RETURN NULL;
END
$$;
CREATE TRIGGER latchgate_forget_limits AFTER DELETE ON tenants
    FOR EACH ROW EXECUTE FUNCTION latchgate_forget_tenant_limits();
ALTER TABLE tenants ENABLE ALWAYS TRIGGER latchgate_forget_limits;
