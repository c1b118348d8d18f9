-- Returns the ids of the sessions of a project ($1), without those that were closed before $3, if that is given; most recent
-- heartbeat first, at most $2.
-- Index: idx_supervisor_sessions_project_status or idx_supervisor_sessions_project_heartbeat.
SELECT instance_id::text FROM supervisor_sessions
WHERE project = $1 AND (closed_at IS NULL OR $3::bigint IS NULL
    OR closed_at >= timestamptz 'epoch' + $3::bigint * interval '1 microsecond')
ORDER BY last_heartbeat DESC, supervisor_sessions.instance_id LIMIT $2
