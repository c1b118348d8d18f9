-- Returns a page ($3 rows) of the sessions that transactions after ($1, $2) changed, up to the newest transaction that
-- has begun. Leaves out what only this host ($4; names $5) changed of its own sessions; $6 is where the pull began. The
-- upper bound matters where a database was restored into a cluster with lower transaction numbers. Paths longer than
-- any file system's are left out. Columns are read as text: if one was made an enum, sqlx would look its type up by
-- statements of its own, which replace the unnamed one.
-- What transactions in $7 changed was read before. Only sessions of some projects ($8) and of this host are returned, unless
-- there is no $8; the last column says whether the project was ever changed.
-- Index: idx_supervisor_sessions_changed.
SELECT instance_id::text, project::text, instance_type::text, status::text, context_percent, current_epic::text,
    (CASE WHEN last_heartbeat IS NOT NULL THEN extract(epoch FROM greatest(least(last_heartbeat, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000 END)::bigint,
    (CASE WHEN created_at IS NOT NULL THEN extract(epoch FROM greatest(least(created_at, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000 END)::bigint,
    (CASE WHEN closed_at IS NOT NULL THEN extract(epoch FROM greatest(least(closed_at, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000 END)::bigint,
    host_machine::text, claude_session_uuid::text,
    CASE WHEN octet_length(claude_session_path) <= 8192 THEN claude_session_path END, resumed_from::text,
    CASE WHEN octet_length(working_dir) <= 8192 THEN working_dir END, changed_xid::text::bigint,
    CASE WHEN host_machine = ANY($5) THEN coalesce(column_times::text, json_build_object('other',
        (CASE WHEN last_heartbeat IS NOT NULL THEN extract(epoch FROM greatest(least(last_heartbeat, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000 END)::bigint
    )::text) END, changed_by, (column_times ?| '{project,host_machine}') IS TRUE
FROM supervisor_sessions
WHERE (changed_xid, instance_id) > ($1::text::xid8, $2) AND changed_xid < pg_snapshot_xmax(pg_current_snapshot())
    AND ($8::text[] IS NULL OR project::text = ANY($8) OR host_machine = ANY($5))
    AND NOT pg_visible_in_snapshot(changed_xid, $7::text::pg_snapshot)
    AND (changed_by IS DISTINCT FROM $4 OR host_machine <> ALL($5)
        OR (others_xid >= $6::text::xid8 AND others_xid < pg_snapshot_xmax(pg_current_snapshot())))
ORDER BY supervisor_sessions.changed_xid, supervisor_sessions.instance_id LIMIT $3
