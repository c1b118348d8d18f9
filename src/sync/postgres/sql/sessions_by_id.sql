-- Returns the sessions with these ids ($1), most recent heartbeat first. Paths longer than any file system's are left out.
-- Index: supervisor_sessions_pkey or idx_supervisor_sessions_instance_id.
SELECT instance_id::text, project::text, instance_type::text, status::text, context_percent, current_epic::text,
    (CASE WHEN last_heartbeat IS NOT NULL THEN extract(epoch FROM greatest(least(last_heartbeat, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000 END)::bigint,
    (CASE WHEN created_at IS NOT NULL THEN extract(epoch FROM greatest(least(created_at, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000 END)::bigint,
    (CASE WHEN closed_at IS NOT NULL THEN extract(epoch FROM greatest(least(closed_at, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000 END)::bigint,
    host_machine::text, claude_session_uuid::text,
    CASE WHEN octet_length(claude_session_path) <= 8192 THEN claude_session_path END, resumed_from::text,
    CASE WHEN octet_length(working_dir) <= 8192 THEN working_dir END, changed_xid::text::bigint, NULL::text, changed_by
FROM supervisor_sessions
WHERE instance_id = ANY($1)
ORDER BY last_heartbeat DESC, instance_id
