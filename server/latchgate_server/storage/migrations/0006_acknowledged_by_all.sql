-- compatible-from: 3
-- A change is told once that every replica has acknowledged it, in place of once by each; and what a statement changed is
-- recorded with less to plan. Code of before takes what is told now for a replica that left, and looks.

-- Notes that a replica has evicted everything up to a revision. Where it was the last that others wait for, it tells the
-- mutators how far all have come by now. Its commit need not be synchronous: an acknowledgement that is lost only makes a
-- mutator wait longer.
CREATE OR REPLACE FUNCTION latchgate_acknowledge(replica text, applied bigint) RETURNS void LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
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

-- Records what a statement changed, from its rows before and after. Arguments: entity, column that holds its id.
CREATE OR REPLACE FUNCTION latchgate_record_changes() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
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
$$;
