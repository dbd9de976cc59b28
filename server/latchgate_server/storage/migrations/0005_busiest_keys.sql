-- compatible-from: 3
-- How often each key was used in its latest hour (since 1970) and in the one before that, and by how much traffic it can be
-- listed: the uses of both hours on a logarithmic scale, an eighth more to each step. An index on the uses themselves
-- would have to be written with every use; a step comes a hundred times while a key is used a hundred thousand times.
-- NULL: not used since there are these columns. So both indexes are empty at first and soon made.
--
-- A tenant's steps are listed by their negatives: the order of one index is no order of the other, and so the planner does
-- not look for a tenant without much use along the steps of everybody.
ALTER TABLE key_last_uses ADD COLUMN busy_hour integer, ADD COLUMN busy_uses bigint, ADD COLUMN busy_before bigint,
    ADD COLUMN busy_step smallint;
CREATE INDEX key_last_uses_busy ON key_last_uses (busy_hour, busy_step) WHERE busy_hour IS NOT NULL;
CREATE INDEX key_last_uses_busy_tenant ON key_last_uses (tenant_id, busy_hour, (-busy_step))
    WHERE busy_hour IS NOT NULL;
