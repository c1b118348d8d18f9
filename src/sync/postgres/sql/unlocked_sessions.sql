-- Returns which of the sessions ($1) no other transaction has locked. Waits for no lock; a row that a running
-- transaction inserts is not seen.
-- Index: supervisor_sessions_pkey or idx_supervisor_sessions_instance_id.
SELECT instance_id FROM supervisor_sessions WHERE instance_id = ANY($1) ORDER BY instance_id
FOR UPDATE SKIP LOCKED
