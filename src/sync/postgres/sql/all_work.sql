-- Returns a page ($3 rows) of the work of all sessions after an id ($2), which no change moves. The other parameters are
-- those of changed_work.sql.
-- The agent is that of the row; where the table has no such column, the name means that of `missing`.
-- Index: session_work_pkey.
SELECT instance_id::text, activity, waiting_for, activity_detail,
    (CASE WHEN activity_since IS NOT NULL THEN extract(epoch FROM greatest(least(activity_since, '9999-12-31Z'), '0001-01-01Z')) * 1000000 END)::bigint,
    activity_source, kind, CASE WHEN octet_length(snapshot::text) <= 65536 THEN snapshot::text END,
    (CASE WHEN recorded_at IS NOT NULL THEN extract(epoch FROM greatest(least(recorded_at, '9999-12-31Z'), '0001-01-01Z')) * 1000000 END)::bigint,
    changed_xid::text::bigint, activity_ended, (SELECT agent FROM (SELECT w.*) AS row)
FROM session_work w, (SELECT NULL::text AS agent) AS missing
WHERE instance_id > $2 AND ($1::text, $4::uuid) IS NOT NULL
ORDER BY instance_id LIMIT $3
