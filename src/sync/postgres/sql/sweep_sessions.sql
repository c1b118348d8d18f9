-- Turns up to $2 active sessions stale that no live host vouches for. Each is measured by the stale_after of its own
-- host; $1 (microseconds) is for hosts that have stated none, and for rows of no host. Returns how many.
-- STALE_AFTER is replaced by the column; where the table had none at the handshake, it is read from the whole row. A row that
-- another transaction is writing is being reported, so it is skipped rather than waited for.
-- Index: idx_supervisor_sessions_machine_status or idx_supervisor_sessions_project_status for the search, by the status
-- alone, where few of many sessions are active; supervisor_sessions_pkey or idx_supervisor_sessions_instance_id for the
-- update.
WITH live AS MATERIALIZED (
    SELECT host_id, machine_name, last_seen,
        coalesce(STALE_AFTER, ($1::bigint * interval '1 microsecond')) AS stale_after
    FROM sessiond_hosts WHERE retired_at IS NULL),
silent AS (
    SELECT s.instance_id FROM supervisor_sessions s
    LEFT JOIN live reporter ON reporter.host_id = s.changed_by
    LEFT JOIN live namesake ON namesake.machine_name = s.host_machine
    WHERE s.status = 'active'
        AND s.last_heartbeat < now()
            - coalesce(reporter.stale_after, namesake.stale_after, ($1::bigint * interval '1 microsecond'))
        AND (reporter.host_id IS NULL OR reporter.last_seen <= now() - reporter.stale_after)
    LIMIT $2 FOR UPDATE OF s SKIP LOCKED),
swept AS (
    UPDATE supervisor_sessions s SET status = 'stale' FROM silent WHERE s.instance_id = silent.instance_id
    RETURNING 1)
SELECT count(*) FROM swept
