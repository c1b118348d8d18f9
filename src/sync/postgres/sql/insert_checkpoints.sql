-- Inserts checkpoints in order. Numbers them after all checkpoints of their session, whose number counts from 1. Other
-- clients number theirs the same way at the same time; a number that is taken meanwhile fails the statement, which is
-- then repeated. Rows that central has are left out by the statement itself: ON CONFLICT would need an index on the id
-- alone, which a partitioned table cannot have. Times after central's present are cut to it. CHECKPOINT_TYPE is
-- replaced by the type of the column, which differs between installations.
-- Index: checkpoints_pkey; idx_sessiond_checkpoints for the newest number.
INSERT INTO checkpoints (checkpoint_id, instance_id, checkpoint_type, sequence_num, context_window_percent,
    timestamp, work_state, metadata, created_at, updated_at)
SELECT p.checkpoint_id, p.id, p.checkpoint_type::CHECKPOINT_TYPE,
    top + row_number() OVER (PARTITION BY p.id ORDER BY place), p.percent,
    least((timestamptz 'epoch' + p.at * interval '1 microsecond'), now()),
    p.work_state::jsonb, '{}'::jsonb,
    least((timestamptz 'epoch' + p.at * interval '1 microsecond'), now()),
    least((timestamptz 'epoch' + p.at * interval '1 microsecond'), now())
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::int[], $6::text[]) WITH ORDINALITY
    AS p (checkpoint_id, id, checkpoint_type, at, percent, work_state, place)
JOIN (SELECT id, coalesce((SELECT max(sequence_num) FROM checkpoints t WHERE t.instance_id = id), 0) AS top
    FROM (SELECT DISTINCT id FROM unnest($2::text[]) AS given (id)) AS ids) AS tops ON tops.id = p.id
WHERE NOT EXISTS (SELECT FROM checkpoints c WHERE c.checkpoint_id = p.checkpoint_id) ORDER BY place
