-- Returns the newest events of sessions ($1): for each, skips some ($2) and returns up to a number of them ($3). A
-- value of more than 64 KiB is left out.
-- Index: event_store_instance_id_sequence_num_key.
SELECT wanted.id, r.* FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS wanted (id, skipped, taken)
CROSS JOIN LATERAL (
    SELECT event_id::text, event_type::text,
        (CASE WHEN timestamp IS NOT NULL THEN extract(epoch FROM greatest(least(timestamp, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000 END)::bigint,
        jsonb_build_object('data', CASE WHEN octet_length(event_data::text) <= 65536 THEN event_data END)::text
    FROM event_store WHERE instance_id = wanted.id ORDER BY sequence_num DESC OFFSET wanted.skipped LIMIT wanted.taken) r
