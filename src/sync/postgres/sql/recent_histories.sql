-- Returns a page ($2 rows) of the sessions after an id ($1) that may still be resumed; only those of some
-- projects ($3) and of this host (names $4), unless there is no $3.
-- Index: supervisor_sessions_pkey or idx_supervisor_sessions_instance_id.
SELECT instance_id, 0::bigint FROM supervisor_sessions
WHERE instance_id > $1 AND (status <> 'closed' OR closed_at > now() - interval '7 days')
    AND ($3::text[] IS NULL OR project::text = ANY($3) OR host_machine = ANY($4))
ORDER BY supervisor_sessions.instance_id LIMIT $2
