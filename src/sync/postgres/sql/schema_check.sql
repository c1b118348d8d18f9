-- Returns whether central has the tables and columns that sessiond needs, and whether it may distribute tables, as Citus does.
-- Index: of the catalog.
SELECT to_regclass('sessiond_hosts') IS NOT NULL AND to_regclass('sessiond_sweep') IS NOT NULL
    AND to_regclass('sessiond_history') IS NOT NULL AND 11 = (
    SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass('supervisor_sessions') AND NOT attisdropped
        AND (attname IN ('host_machine', 'claude_session_uuid', 'claude_session_path',
            'resumed_from', 'working_dir', 'changed_xid', 'column_times', 'others_xid')
        OR attname IN ('last_heartbeat', 'created_at', 'closed_at') AND atttypid = 'timestamptz'::regtype)),
    to_regclass('pg_dist_partition') IS NOT NULL
