-- Returns the machine and created_at of the sessions ($1) that were not written.
-- Index: supervisor_sessions_pkey or idx_supervisor_sessions_instance_id.
SELECT instance_id, host_machine,
    (CASE WHEN created_at IS NOT NULL THEN extract(epoch FROM greatest(least(created_at, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000 END)::bigint
FROM supervisor_sessions WHERE instance_id = ANY($1)
