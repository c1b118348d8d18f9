-- Returns a page ($2 rows) of all sessions after an id ($1), which no change moves; only those of some projects ($4) and of
-- this host (names $3), unless there is no $4. Column times are returned for this host's sessions. Paths longer than any file system's are left out.
-- Index: supervisor_sessions_pkey or idx_supervisor_sessions_instance_id.
SELECT instance_id::text, project::text, instance_type::text, status::text, context_percent, current_epic::text,
    (CASE WHEN last_heartbeat IS NOT NULL THEN extract(epoch FROM greatest(least(last_heartbeat, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000 END)::bigint,
    (CASE WHEN created_at IS NOT NULL THEN extract(epoch FROM greatest(least(created_at, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000 END)::bigint,
    (CASE WHEN closed_at IS NOT NULL THEN extract(epoch FROM greatest(least(closed_at, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000 END)::bigint,
    host_machine::text, claude_session_uuid::text,
    CASE WHEN octet_length(claude_session_path) <= 8192 THEN claude_session_path END, resumed_from::text,
    CASE WHEN octet_length(working_dir) <= 8192 THEN working_dir END, changed_xid::text::bigint,
    CASE WHEN host_machine = ANY($3) THEN coalesce(column_times::text, json_build_object('other',
        (CASE WHEN last_heartbeat IS NOT NULL THEN extract(epoch FROM greatest(least(last_heartbeat, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000 END)::bigint
    )::text) END, changed_by
FROM supervisor_sessions
WHERE instance_id > $1 AND ($4::text[] IS NULL OR project::text = ANY($4) OR host_machine = ANY($3))
ORDER BY supervisor_sessions.instance_id LIMIT $2
