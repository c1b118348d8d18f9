-- Returns the newest changes of the activity of a session ($1), at most 100, of those that transactions since $2 wrote, as
-- JSON. It is inserted into the statements that read the work of sessions: to ask for the changes of one row by itself costs
-- central about as much as the row.
-- Index: sessiond_activity_pkey.
SELECT json_agg(json_build_array(
    (extract(epoch FROM greatest(least(at, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000)::bigint, activity,
    waiting_for, left(detail, 1000), greatest(0, least(100, context_percent::int))))
FROM (SELECT at, activity, waiting_for, detail, context_percent FROM sessiond_activity
    WHERE instance_id = $1 AND changed_xid >= $2::text::xid8 AND at > now() - interval '7 days'
    ORDER BY at DESC LIMIT 100) newest
