-- Returns the sizes in bytes of the newest checkpoint (1 at most) of sessions ($1): the session's place, the kind, the
-- rank, the size. One UNION ALL of the three files is sent, without those of tables that this login cannot read.
-- Index: idx_sessiond_checkpoints.
SELECT wanted.n, 2 AS kind, r.rank, r.size::bigint FROM unnest($1::text[]) WITH ORDINALITY AS wanted (id, n)
CROSS JOIN LATERAL (
    SELECT row_number() OVER (ORDER BY sequence_num DESC) AS rank,
        64 + least(coalesce(octet_length(work_state::text), 0), 65536) AS size
    FROM checkpoints WHERE instance_id = wanted.id ORDER BY sequence_num DESC LIMIT 1) r
