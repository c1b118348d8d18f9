-- Returns the newest checkpoints of sessions ($1): for each, skips some ($2) and returns up to a number of them ($3). A
-- value of more than 64 KiB is left out.
-- Index: idx_sessiond_checkpoints.
SELECT wanted.id, r.* FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS wanted (id, skipped, taken)
CROSS JOIN LATERAL (
    SELECT checkpoint_id::text, checkpoint_type::text,
        (CASE WHEN timestamp IS NOT NULL THEN extract(epoch FROM greatest(least(timestamp, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000 END)::bigint,
        jsonb_build_object('context_window_percent', context_window_percent,
            'work_state', CASE WHEN octet_length(work_state::text) <= 65536 THEN work_state END)::text
    FROM checkpoints WHERE instance_id = wanted.id ORDER BY sequence_num DESC OFFSET wanted.skipped LIMIT wanted.taken) r
