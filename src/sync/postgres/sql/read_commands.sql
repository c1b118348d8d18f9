-- Returns the newest commands of sessions ($1): for each, skips some ($2) and returns up to a number of them ($3). A
-- value of more than 64 KiB is left out. Commands have no key of their own: those of sessiond carry one, for others
-- their number serves.
-- Index: idx_sessiond_command_log.
SELECT wanted.id, r.* FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS wanted (id, skipped, taken)
CROSS JOIN LATERAL (
    SELECT coalesce(substring(context_data->>'record_id'
        FROM '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'),
        'c0ffee00-0000-4000-8000-' || lpad(to_hex(id), 12, '0')), command_type::text,
        (CASE WHEN created_at IS NOT NULL THEN extract(epoch FROM greatest(least(created_at, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000 END)::bigint,
        jsonb_build_object('action', action, 'tool_name', tool_name,
            'parameters', CASE WHEN octet_length(parameters::text) <= 65536 THEN parameters END,
            'result', CASE WHEN octet_length(result::text) <= 65536 THEN result END,
            'error_message', left(error_message, 16384), 'success', success, 'execution_time_ms', execution_time_ms,
            'tags', CASE WHEN octet_length(tags::text) <= 65536 THEN tags END)::text
    FROM command_log WHERE instance_id = wanted.id ORDER BY id DESC OFFSET wanted.skipped LIMIT wanted.taken) r
