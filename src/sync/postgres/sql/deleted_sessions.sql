-- Returns a page ($3 rows) of the deletions by transactions after ($1, $2). A session that is there was brought back,
-- in any transaction; unless it is of none of some projects ($5), if there are any, and not of this host (names $6).
-- What transactions in $4 changed was read before.
-- Index: sessiond_tombstones_pkey; supervisor_sessions_pkey or idx_supervisor_sessions_instance_id.
SELECT instance_id,
    (CASE WHEN created_at IS NOT NULL THEN extract(epoch FROM greatest(least(created_at, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000 END)::bigint,
    changed_xid::text::bigint
FROM sessiond_tombstones t
WHERE (changed_xid, instance_id) > ($1::text::xid8, $2) AND changed_xid < pg_snapshot_xmax(pg_current_snapshot())
    AND NOT pg_visible_in_snapshot(changed_xid, $4::text::pg_snapshot)
    AND NOT EXISTS (SELECT FROM supervisor_sessions s
        WHERE s.instance_id = t.instance_id AND s.created_at = t.created_at
            AND ($5::text[] IS NULL OR s.project::text = ANY($5) OR s.host_machine = ANY($6)))
ORDER BY t.changed_xid, t.instance_id LIMIT $3
