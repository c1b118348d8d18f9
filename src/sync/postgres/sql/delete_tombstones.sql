-- Deletes those of the $1 oldest tombstones that are older than 30 days. Every mirror has applied them, or reads
-- everything because it was away for longer. Returns how many. The age is checked again, because a row of another partition
-- may have the same ctid.
-- Index: sessiond_tombstones_pkey, whose order of transactions is that of time, except after a restore, where old
-- tombstones may wait behind young ones until these are 30 days old too.
WITH old AS (DELETE FROM sessiond_tombstones WHERE ctid = ANY (ARRAY(
    SELECT oldest.ctid FROM (
        SELECT ctid, deleted_at FROM sessiond_tombstones ORDER BY changed_xid, instance_id LIMIT $1) AS oldest
    WHERE oldest.deleted_at < now() - interval '30 days'))
    AND deleted_at < now() - interval '30 days' RETURNING 1)
SELECT count(*) FROM old
