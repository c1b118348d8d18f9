-- Returns the newest changes of the activities of sessions ($1), at most 100 of each, of those that transactions since
-- $2 wrote.
-- Index: sessiond_activity_pkey.
SELECT wanted.id, r.* FROM unnest($1::text[]) AS wanted (id)
CROSS JOIN LATERAL (
    SELECT (extract(epoch FROM greatest(least(at, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000)::bigint, activity,
        waiting_for, left(detail, 1000), greatest(0, least(100, context_percent::int))
    FROM sessiond_activity WHERE instance_id = wanted.id AND changed_xid >= $2::text::xid8
        AND at > now() - interval '7 days'
    ORDER BY at DESC LIMIT 100) r
