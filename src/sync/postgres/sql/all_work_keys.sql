-- Returns the keys of the rows of all_work.sql, for a page that the server cannot send.
-- Index: session_work_pkey; supervisor_sessions_pkey or idx_supervisor_sessions_instance_id.
SELECT instance_id, changed_xid::text::bigint FROM session_work
WHERE instance_id > $1
    AND ($3::text[] IS NULL OR (SELECT bool_or(s.project::text = ANY($3) OR s.host_machine = ANY($4))
        FROM supervisor_sessions s WHERE s.instance_id = session_work.instance_id))
ORDER BY session_work.instance_id LIMIT $2
