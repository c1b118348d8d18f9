-- Returns the keys of the rows of changed_sessions.sql, for a page that the server cannot send.
-- What transactions in $7 changed was read before.
-- Index: idx_supervisor_sessions_changed.
SELECT instance_id, changed_xid::text::bigint FROM supervisor_sessions
WHERE (changed_xid, instance_id) > ($1::text::xid8, $2) AND changed_xid < pg_snapshot_xmax(pg_current_snapshot())
    AND ($8::text[] IS NULL OR project::text = ANY($8) OR host_machine = ANY($5))
    AND NOT pg_visible_in_snapshot(changed_xid, $7::text::pg_snapshot)
    AND (changed_by IS DISTINCT FROM $4 OR host_machine <> ALL($5)
        OR (others_xid >= $6::text::xid8 AND others_xid < pg_snapshot_xmax(pg_current_snapshot())))
ORDER BY supervisor_sessions.changed_xid, supervisor_sessions.instance_id LIMIT $3
