-- Returns a page ($2 rows) of the sessions after an id ($1) that may still be resumed.
-- Index: supervisor_sessions_pkey or idx_supervisor_sessions_instance_id.
SELECT instance_id, 0::bigint FROM supervisor_sessions
WHERE instance_id > $1 AND (status <> 'closed' OR closed_at > now() - interval '7 days')
ORDER BY instance_id LIMIT $2
