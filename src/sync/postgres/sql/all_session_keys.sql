-- Returns the keys of the rows of all_sessions.sql, for a page that the server cannot send.
-- Index: supervisor_sessions_pkey or idx_supervisor_sessions_instance_id.
SELECT instance_id, changed_xid::text::bigint FROM supervisor_sessions
WHERE instance_id > $1 AND ($4::text[] IS NULL OR project::text = ANY($4) OR host_machine = ANY($3))
ORDER BY supervisor_sessions.instance_id LIMIT $2
