-- Turns those of these sessions ($2) stale that this host ($1) wrote last and that are active. The host does not have them:
-- its store was lost, or central was restored. No daemon would ever say that they ended.
-- Index: supervisor_sessions_pkey or idx_supervisor_sessions_instance_id.
UPDATE supervisor_sessions SET status = 'stale'
WHERE instance_id = ANY($2) AND changed_by = $1 AND status = 'active'
