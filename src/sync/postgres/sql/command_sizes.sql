-- Returns the sizes in bytes of the newest commands (20 at most) of sessions ($1): the session's place, the kind, the
-- rank, the size. One UNION ALL of the three files is sent, without those of tables that this login cannot read.
-- Index: idx_sessiond_command_log.
SELECT wanted.n, 1 AS kind, r.rank, r.size::bigint FROM unnest($1::text[]) WITH ORDINALITY AS wanted (id, n)
CROSS JOIN LATERAL (
    SELECT row_number() OVER (ORDER BY id DESC) AS rank,
        64 + least(coalesce(octet_length(parameters::text), 0), 65536) + least(coalesce(octet_length(result::text), 0), 65536)
            + least(coalesce(octet_length(tags::text), 0), 65536) + least(coalesce(octet_length(error_message), 0), 65536) AS size
    FROM command_log WHERE instance_id = wanted.id ORDER BY id DESC LIMIT 20) r
