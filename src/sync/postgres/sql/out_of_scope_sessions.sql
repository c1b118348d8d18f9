-- Returns a page ($3 rows) of the sessions that transactions after ($1, $2) changed, up to the newest transaction that has
-- begun, and that are of none of some projects ($5) and not of this host (names $6), but may have been: another client
-- changed their project or machine at some time. Daemons never do.
-- What transactions in $4 changed was read before.
-- Index: idx_supervisor_sessions_changed.
SELECT instance_id,
    (CASE WHEN created_at IS NOT NULL THEN extract(epoch FROM greatest(least(created_at, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000 END)::bigint,
    changed_xid::text::bigint
FROM supervisor_sessions
WHERE (changed_xid, instance_id) > ($1::text::xid8, $2) AND changed_xid < pg_snapshot_xmax(pg_current_snapshot())
    AND NOT pg_visible_in_snapshot(changed_xid, $4::text::pg_snapshot)
    AND column_times ?| '{project,host_machine}'
    AND project::text <> ALL($5::text[]) AND host_machine <> ALL($6)
ORDER BY supervisor_sessions.changed_xid, supervisor_sessions.instance_id LIMIT $3
