-- Deletes some changes of activities that are older than 7 days, but none that another host is deleting.
-- Index: sessiond_activity_at, sessiond_activity_pkey.
DELETE FROM sessiond_activity a USING (
    SELECT instance_id, at FROM sessiond_activity WHERE at < now() - interval '7 days'
    ORDER BY at LIMIT 200 FOR UPDATE SKIP LOCKED) old
WHERE a.instance_id = old.instance_id AND a.at = old.at
