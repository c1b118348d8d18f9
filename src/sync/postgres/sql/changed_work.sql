-- Returns a page ($3 rows) of the work of sessions that transactions after ($1, $2) changed, up to the newest transaction
-- that has begun. Leaves out what this host ($4) wrote itself. A snapshot that is larger than any daemon writes is left
-- out.
-- AGENT is replaced by the column; where the table had none at the handshake, it is read from the whole
-- row. CHANGES is replaced by read_activity.sql; where this login may not use that table, by null.
-- What transactions in $5 changed was read before.
-- Only work of sessions of some projects ($6) and of this host (names $7) is returned, unless there is no $6.
-- Index: session_work_changed; supervisor_sessions_pkey or idx_supervisor_sessions_instance_id.
SELECT instance_id::text, activity, waiting_for, activity_detail,
    (CASE WHEN activity_since IS NOT NULL THEN extract(epoch FROM greatest(least(activity_since, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000 END)::bigint,
    activity_source, kind, CASE WHEN octet_length(snapshot::text) <= 65536 THEN snapshot::text END,
    (CASE WHEN recorded_at IS NOT NULL THEN extract(epoch FROM greatest(least(recorded_at, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000 END)::bigint,
    changed_xid::text::bigint, activity_ended, AGENT, CHANGES
FROM session_work
WHERE (changed_xid, instance_id) > ($1::text::xid8, $2) AND changed_xid < pg_snapshot_xmax(pg_current_snapshot())
    AND NOT pg_visible_in_snapshot(changed_xid, $5::text::pg_snapshot)
    AND changed_by IS DISTINCT FROM $4
    AND ($6::text[] IS NULL OR (SELECT bool_or(s.project::text = ANY($6) OR s.host_machine = ANY($7))
        FROM supervisor_sessions s WHERE s.instance_id = session_work.instance_id))
ORDER BY session_work.changed_xid, session_work.instance_id LIMIT $3
