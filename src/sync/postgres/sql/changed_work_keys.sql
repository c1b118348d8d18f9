-- Returns the keys of the rows of changed_work.sql, for a page that the server cannot send.
-- What transactions in $5 changed was read before.
-- Index: session_work_changed; supervisor_sessions_pkey or idx_supervisor_sessions_instance_id.
SELECT instance_id, changed_xid::text::bigint FROM session_work
WHERE (changed_xid, instance_id) > ($1::text::xid8, $2) AND changed_xid < pg_snapshot_xmax(pg_current_snapshot())
    AND NOT pg_visible_in_snapshot(changed_xid, $5::text::pg_snapshot)
    AND changed_by IS DISTINCT FROM $4
    AND ($6::text[] IS NULL OR (SELECT bool_or(s.project::text = ANY($6) OR s.host_machine = ANY($7))
        FROM supervisor_sessions s WHERE s.instance_id = session_work.instance_id))
ORDER BY session_work.changed_xid, session_work.instance_id LIMIT $3
