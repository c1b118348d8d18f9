-- Inserts changes of activities that are not there yet. Times after central's present are cut to it. All hosts write rows
-- in the order of their keys, so that no two wait for each other.
-- Index: sessiond_activity_pkey, by the conflict check.
INSERT INTO sessiond_activity (instance_id, at, activity, waiting_for, detail, context_percent)
SELECT instance_id, least((timestamptz 'epoch' + at * interval '1 microsecond'), now()), activity, waiting_for, detail,
    context_percent
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::int[])
    AS pushed (instance_id, at, activity, waiting_for, detail, context_percent)
ORDER BY instance_id, at
ON CONFLICT (instance_id, at) DO NOTHING
