-- Names the numbering of central's transactions: the cluster, its history (which forks where a backup is restored or a
-- standby promoted), the database and the table. Also returns whether this login may read the migrations.
-- Index: of the catalog.
SELECT concat_ws('-',
    CASE WHEN has_function_privilege('pg_control_system()', 'execute')
        THEN (SELECT system_identifier FROM pg_control_system()) END,
    CASE WHEN has_function_privilege('pg_control_checkpoint()', 'execute')
        THEN (SELECT timeline_id FROM pg_control_checkpoint()) END,
    (SELECT oid FROM pg_database WHERE datname = current_database()), 'supervisor_sessions'::regclass::oid),
    coalesce(has_table_privilege(to_regclass('sessiond_migrations'), 'SELECT'), false)
