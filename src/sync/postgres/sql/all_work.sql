-- Returns a page ($2 rows) of the work of all sessions after an id ($1), which no change moves.
-- AGENT is replaced by the column; where the table had none at the handshake, it is read from the whole
-- row. CHANGES is replaced by read_activity.sql; where this login may not use that table, by null.
-- Only work of sessions of some projects ($3) and of this host (names $4) is returned, unless there is no $3.
-- Index: session_work_pkey; supervisor_sessions_pkey or idx_supervisor_sessions_instance_id.
SELECT instance_id::text, activity, waiting_for, activity_detail,
    (CASE WHEN activity_since IS NOT NULL THEN extract(epoch FROM greatest(least(activity_since, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000 END)::bigint,
    activity_source, kind, CASE WHEN octet_length(snapshot::text) <= 65536 THEN snapshot::text END,
    (CASE WHEN recorded_at IS NOT NULL THEN extract(epoch FROM greatest(least(recorded_at, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000 END)::bigint,
    changed_xid::text::bigint, activity_ended, AGENT, CHANGES
FROM session_work
WHERE instance_id > $1
    AND ($3::text[] IS NULL OR (SELECT bool_or(s.project::text = ANY($3) OR s.host_machine = ANY($4))
        FROM supervisor_sessions s WHERE s.instance_id = session_work.instance_id))
ORDER BY session_work.instance_id LIMIT $2
