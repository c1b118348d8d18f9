-- Returns a page ($3 rows) of the sessions of some projects ($6) and of this host (names $7) with new records by transactions
-- after ($1, $2), without those of this host ($4) alone, and of those that such a transaction changed and whose project
-- or machine another client changed at some time: they may be new in the scope.
-- What transactions in $5 changed was read before.
-- Index: sessiond_history_pkey; idx_supervisor_sessions_changed; supervisor_sessions_pkey or
-- idx_supervisor_sessions_instance_id.
SELECT instance_id, changed_xid::text::bigint FROM (
    SELECT instance_id, changed_xid FROM sessiond_history
    WHERE (changed_xid, instance_id) > ($1::text::xid8, $2) AND changed_xid < pg_snapshot_xmax(pg_current_snapshot())
        AND NOT pg_visible_in_snapshot(changed_xid, $5::text::pg_snapshot)
        AND changed_by IS DISTINCT FROM $4
        AND (SELECT bool_or(s.project::text = ANY($6::text[]) OR s.host_machine = ANY($7))
            FROM supervisor_sessions s WHERE s.instance_id = sessiond_history.instance_id)
    UNION ALL
    SELECT instance_id, changed_xid FROM supervisor_sessions
    WHERE (changed_xid, instance_id) > ($1::text::xid8, $2) AND changed_xid < pg_snapshot_xmax(pg_current_snapshot())
        AND NOT pg_visible_in_snapshot(changed_xid, $5::text::pg_snapshot)
        AND column_times ?| '{project,host_machine}' AND (project::text = ANY($6::text[])) IS TRUE
) changed
ORDER BY changed.changed_xid, changed.instance_id LIMIT $3
