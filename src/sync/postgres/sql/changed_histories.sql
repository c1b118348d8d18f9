-- Returns a page ($3 rows) of the sessions with new records by transactions after ($1, $2), without those of this host
-- ($4) alone.
-- What transactions in $5 changed was read before.
-- Only sessions of some projects ($6) and of this host (names $7) are returned, unless there is no $6.
-- Index: sessiond_history_pkey.
SELECT instance_id, changed_xid::text::bigint FROM sessiond_history
WHERE (changed_xid, instance_id) > ($1::text::xid8, $2) AND changed_xid < pg_snapshot_xmax(pg_current_snapshot())
    AND NOT pg_visible_in_snapshot(changed_xid, $5::text::pg_snapshot)
    AND changed_by IS DISTINCT FROM $4
    AND ($6::text[] IS NULL OR (SELECT bool_or(s.project::text = ANY($6) OR s.host_machine = ANY($7))
        FROM supervisor_sessions s WHERE s.instance_id = sessiond_history.instance_id))
ORDER BY sessiond_history.changed_xid, sessiond_history.instance_id LIMIT $3
