-- Returns a page ($3 rows) of the sessions with new records by transactions after ($1, $2), without those of this host
-- ($4) alone.
-- What transactions in $5 changed was read before.
-- Index: sessiond_history_pkey.
SELECT instance_id, changed_xid::text::bigint FROM sessiond_history
WHERE (changed_xid, instance_id) > ($1::text::xid8, $2) AND changed_xid < pg_snapshot_xmax(pg_current_snapshot())
    AND NOT pg_visible_in_snapshot(changed_xid, $5::text::pg_snapshot)
    AND changed_by IS DISTINCT FROM $4
ORDER BY changed_xid, instance_id LIMIT $3
