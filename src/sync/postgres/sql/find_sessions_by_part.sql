-- Returns the ids that match a pattern ($1), those of closed sessions only if $3; most recent heartbeat first, at most $2.
-- Index: none: what an id begins with is a range of an index only in some collations. It is asked for when a person names a
-- session by part of its id.
SELECT instance_id::text FROM supervisor_sessions
WHERE instance_id LIKE $1 AND ($3 OR status <> 'closed')
ORDER BY last_heartbeat DESC, supervisor_sessions.instance_id LIMIT $2
