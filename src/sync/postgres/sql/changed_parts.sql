-- Returns the oldest running transaction, all that are running, and whether transactions since $1 deleted sessions, changed
-- sessions, changed what sessions do and work on, and added to histories: the parts of a pull that may have rows.
-- Every transaction that is not visible yet is at least as new as the oldest running one. The value is inserted as a literal,
-- because the statement goes in one round trip with BEGIN. No part has conditions, which would take longer to plan than the
-- newest rows to read.
-- Index: sessiond_tombstones_pkey; idx_supervisor_sessions_changed; session_work_changed; sessiond_history_pkey.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint, pg_current_snapshot()::text,
    coalesce((SELECT changed_xid FROM sessiond_tombstones ORDER BY changed_xid DESC, instance_id DESC LIMIT 1) >= $1::xid8, false),
    coalesce((SELECT changed_xid FROM supervisor_sessions ORDER BY changed_xid DESC, instance_id DESC LIMIT 1) >= $1::xid8, false),
    coalesce((SELECT changed_xid FROM session_work ORDER BY changed_xid DESC, instance_id DESC LIMIT 1) >= $1::xid8, false),
    coalesce((SELECT changed_xid FROM sessiond_history ORDER BY changed_xid DESC, instance_id DESC LIMIT 1) >= $1::xid8, false)
