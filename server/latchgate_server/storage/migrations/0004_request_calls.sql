-- compatible-from: 3
-- What a request asked for, as a digest, so that its id cannot be used for another call. NULL: made by the version before.
ALTER TABLE key_requests ADD COLUMN call bytea;
