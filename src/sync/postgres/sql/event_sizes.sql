-- Returns the sizes in bytes of the newest events (50 at most) of sessions ($1): the session's place, the kind, the
-- rank, the size. One UNION ALL of the three files is sent, without those of tables that this login cannot read.
-- Index: event_store_instance_id_sequence_num_key.
SELECT wanted.n, 0 AS kind, r.rank, r.size::bigint FROM unnest($1::text[]) WITH ORDINALITY AS wanted (id, n)
CROSS JOIN LATERAL (
    SELECT row_number() OVER (ORDER BY sequence_num DESC) AS rank,
        64 + least(coalesce(octet_length(event_data::text), 0), 65536) AS size
    FROM event_store WHERE instance_id = wanted.id ORDER BY sequence_num DESC LIMIT 50) r
