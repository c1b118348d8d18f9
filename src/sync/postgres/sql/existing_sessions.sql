-- Returns which of the sessions ($1) central has. Waits for no lock; a row that a running transaction inserts is not
-- seen.
-- Index: supervisor_sessions_pkey or idx_supervisor_sessions_instance_id.
SELECT instance_id::text FROM supervisor_sessions WHERE instance_id = ANY($1)
