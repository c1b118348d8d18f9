-- Returns the ids of the sessions with an epic ($1) that are not closed; most recent heartbeat first, at most $2.
-- Index: none: the table has none on the epic, which is asked for when a person resumes a session.
SELECT instance_id::text FROM supervisor_sessions
WHERE current_epic = $1 AND status <> 'closed'
ORDER BY last_heartbeat DESC, supervisor_sessions.instance_id LIMIT $2
