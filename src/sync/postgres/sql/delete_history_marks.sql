-- Deletes up to $1 marks of changed histories that are older than 30 days. Every mirror has read them, or reads
-- everything because it was away for longer. Returns how many. The age is checked again, because a row of another partition
-- may have the same ctid.
-- Index: sessiond_history_added_at.
WITH old AS (DELETE FROM sessiond_history WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM sessiond_history WHERE added_at < now() - interval '30 days' LIMIT $1))
    AND added_at < now() - interval '30 days' RETURNING 1)
SELECT count(*) FROM old
