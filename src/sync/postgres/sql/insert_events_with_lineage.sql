-- Inserts events in order, with their parent, root and depth. Numbers them after all events of their session, whose
-- number counts from 1. Other clients number theirs the same way at the same time; a number that is taken meanwhile
-- fails the statement, which is then repeated. Rows that central has are left out by the statement itself: ON CONFLICT
-- would need an index on the id alone, which a partitioned table cannot have. Times after central's present are cut to
-- it.
-- Index: event_store_pkey; event_store_instance_id_sequence_num_key for the newest number.
INSERT INTO event_store (event_id, instance_id, event_type, sequence_num, timestamp, event_data, metadata,
    created_at, updated_at, parent_uuid, root_uuid, depth)
SELECT p.event_id, p.id, p.event_type, top + row_number() OVER (PARTITION BY p.id ORDER BY place),
    least((timestamptz 'epoch' + p.at * interval '1 microsecond'), now()),
    p.data::jsonb, p.metadata::jsonb,
    least((timestamptz 'epoch' + p.at * interval '1 microsecond'), now()),
    least((timestamptz 'epoch' + p.at * interval '1 microsecond'), now()),
    p.parent, p.root, p.depth
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[],
    $6::text[], $7::uuid[], $8::uuid[], $9::int[]) WITH ORDINALITY
    AS p (event_id, id, event_type, at, data, metadata, parent, root, depth, place)
JOIN (SELECT id, coalesce((SELECT max(sequence_num) FROM event_store t WHERE t.instance_id = id), 0) AS top
    FROM (SELECT DISTINCT id FROM unnest($2::text[]) AS given (id)) AS ids) AS tops ON tops.id = p.id
WHERE NOT EXISTS (SELECT FROM event_store e WHERE e.event_id = p.event_id) ORDER BY place
