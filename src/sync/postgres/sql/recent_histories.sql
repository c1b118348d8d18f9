-- Returns a page ($3 rows) of the sessions after an id ($2) that may still be resumed. The other parameters are those
-- of changed_histories.sql.
-- Index: supervisor_sessions_pkey or idx_supervisor_sessions_instance_id.
SELECT instance_id, 0::bigint FROM supervisor_sessions
WHERE instance_id > $2 AND (status <> 'closed' OR closed_at > now() - interval '7 days')
    AND ($1::text, $4::uuid) IS NOT NULL
ORDER BY instance_id LIMIT $3
