-- Returns the work of the sessions with these ids ($1).
-- AGENT is replaced by the column; where the table had none at the handshake, it is read from the whole
-- row. CHANGES is replaced by read_activity.sql; where this login may not use that table, by null.
-- Index: session_work_pkey or session_work_changed.
SELECT instance_id::text, activity, waiting_for, activity_detail,
    (CASE WHEN activity_since IS NOT NULL THEN extract(epoch FROM greatest(least(activity_since, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000 END)::bigint,
    activity_source, kind, CASE WHEN octet_length(snapshot::text) <= 65536 THEN snapshot::text END,
    (CASE WHEN recorded_at IS NOT NULL THEN extract(epoch FROM greatest(least(recorded_at, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000 END)::bigint,
    changed_xid::text::bigint, activity_ended, AGENT, CHANGES
FROM session_work
WHERE instance_id = ANY($1)
