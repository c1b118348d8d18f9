-- Announces to the mirrors of other hosts that these sessions ($1) have new records, whether or not the trigger does.
-- Index: sessiond_history_pkey, by the conflict check.
INSERT INTO sessiond_history (instance_id, changed_xid)
SELECT DISTINCT id, pg_current_xact_id() FROM unnest($1::text[]) AS id ON CONFLICT DO NOTHING
