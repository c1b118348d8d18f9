-- Deletes up to $1 tombstones that are older than 30 days. Every mirror has applied them, or reads everything because
-- it was away for longer. Returns how many.
-- Index: none, reads the table until enough are found.
WITH old AS (DELETE FROM sessiond_tombstones WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM sessiond_tombstones WHERE deleted_at < now() - interval '30 days' LIMIT $1)) RETURNING 1)
SELECT count(*) FROM old
