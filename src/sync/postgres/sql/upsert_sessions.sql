-- Inserts sessions, or merges them into central's rows. Returns the id of each row that was written, when it was closed
-- if it is, and central's time if the heartbeat is stamped with it.
-- Merging: a column by its own time, if it is offered (column_times); status and heartbeat by the time of the
-- heartbeat; closed is permanent. For a column whose change central has no time of, the last heartbeat counts. A row is
-- only written if it is the same session (created_at) of this host (host_machine, or one of its former names, $15).
-- Times after central's present are cut to it, but created_at never: together with the id it identifies the session.
-- All hosts write rows in the order of their ids, so that no two wait for each other.
-- The rule is spelled out for each of six columns, because only a sub-SELECT could state it once: another plan for each
-- row, and an assignment of several columns, which not every engine that speaks Postgres has in ON CONFLICT.
-- The time at which the transaction began is a parameter ($18, and as microseconds $19), and times are turned into numbers
-- by way of an interval: engines that distribute tables require that what merges rows calls immutable functions only.
-- Index: supervisor_sessions_pkey, by the conflict check.
INSERT INTO supervisor_sessions AS s (instance_id, project, instance_type, status, context_percent,
    current_epic, last_heartbeat, created_at, closed_at, host_machine, claude_session_uuid, claude_session_path,
    resumed_from, working_dir, column_times)
SELECT instance_id, project, instance_type, status, context_percent, current_epic,
    least((timestamptz 'epoch' + last_heartbeat * interval '1 microsecond'), $18::timestamptz),
    (timestamptz 'epoch' + created_at * interval '1 microsecond'),
    CASE WHEN closed_at IS NOT NULL THEN least((timestamptz 'epoch' + closed_at * interval '1 microsecond'), $18::timestamptz) END,
    host_machine, claude_session_uuid, claude_session_path, resumed_from, working_dir,
    CASE WHEN newest_change <= $19::bigint THEN column_times::jsonb
    ELSE (SELECT jsonb_object_agg(key, least(value::bigint, $19::bigint))
        FROM jsonb_each_text(column_times::jsonb)) END
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::int[], $6::text[], $7::bigint[], $8::bigint[],
    $9::bigint[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $16::text[], $17::bigint[])
    AS pushed (instance_id, project, instance_type, status, context_percent, current_epic, last_heartbeat,
    created_at, closed_at, host_machine, claude_session_uuid, claude_session_path, resumed_from, working_dir,
    column_times, newest_change)
ORDER BY instance_id
ON CONFLICT (instance_id) DO UPDATE SET
    status = CASE WHEN 'closed' IN (s.status, excluded.status) THEN 'closed'
        WHEN (excluded.last_heartbeat >= s.last_heartbeat OR s.last_heartbeat > $18::timestamptz) THEN excluded.status
        ELSE s.status END,
    closed_at = CASE WHEN s.status = 'closed' THEN s.closed_at ELSE excluded.closed_at END,
    last_heartbeat = CASE WHEN (excluded.last_heartbeat >= s.last_heartbeat OR s.last_heartbeat > $18::timestamptz)
        THEN excluded.last_heartbeat ELSE s.last_heartbeat END,
    host_machine = excluded.host_machine,
    column_times = CASE WHEN excluded.column_times = '{}' THEN s.column_times ELSE
        (SELECT known || jsonb_object_agg(key, greatest(value::bigint, (known->>key)::bigint,
                (known->>'other')::bigint))
            FROM (SELECT coalesce(s.column_times, jsonb_build_object('other',
                    (extract(epoch FROM greatest(least(s.last_heartbeat, $18::timestamptz), '0001-01-01Z') - timestamptz 'epoch') * 1000000)::bigint)))
                AS k (known), jsonb_each_text(excluded.column_times) GROUP BY known) END,
    context_percent = CASE WHEN (excluded.column_times->>'context_percent')::bigint
        > coalesce(coalesce(s.column_times->>'context_percent', s.column_times->>'other')::bigint,
            CASE WHEN s.column_times IS NULL AND s.last_heartbeat <= $18::timestamptz
            THEN (extract(epoch FROM greatest(s.last_heartbeat, '0001-01-01Z') - timestamptz 'epoch') * 1000000)::bigint END, 0)
        THEN excluded.context_percent ELSE s.context_percent END,
    current_epic = CASE WHEN (excluded.column_times->>'current_epic')::bigint
        > coalesce(coalesce(s.column_times->>'current_epic', s.column_times->>'other')::bigint,
            CASE WHEN s.column_times IS NULL AND s.last_heartbeat <= $18::timestamptz
            THEN (extract(epoch FROM greatest(s.last_heartbeat, '0001-01-01Z') - timestamptz 'epoch') * 1000000)::bigint END, 0)
        THEN excluded.current_epic ELSE s.current_epic END,
    claude_session_uuid = CASE WHEN (excluded.column_times->>'claude_session_uuid')::bigint
        > coalesce(coalesce(s.column_times->>'claude_session_uuid', s.column_times->>'other')::bigint,
            CASE WHEN s.column_times IS NULL AND s.last_heartbeat <= $18::timestamptz
            THEN (extract(epoch FROM greatest(s.last_heartbeat, '0001-01-01Z') - timestamptz 'epoch') * 1000000)::bigint END, 0)
        THEN excluded.claude_session_uuid ELSE s.claude_session_uuid END,
    claude_session_path = CASE WHEN (excluded.column_times->>'claude_session_path')::bigint
        > coalesce(coalesce(s.column_times->>'claude_session_path', s.column_times->>'other')::bigint,
            CASE WHEN s.column_times IS NULL AND s.last_heartbeat <= $18::timestamptz
            THEN (extract(epoch FROM greatest(s.last_heartbeat, '0001-01-01Z') - timestamptz 'epoch') * 1000000)::bigint END, 0)
        THEN excluded.claude_session_path ELSE s.claude_session_path END,
    working_dir = CASE WHEN (excluded.column_times->>'working_dir')::bigint
        > coalesce(coalesce(s.column_times->>'working_dir', s.column_times->>'other')::bigint,
            CASE WHEN s.column_times IS NULL AND s.last_heartbeat <= $18::timestamptz
            THEN (extract(epoch FROM greatest(s.last_heartbeat, '0001-01-01Z') - timestamptz 'epoch') * 1000000)::bigint END, 0)
        THEN excluded.working_dir ELSE s.working_dir END,
    resumed_from = CASE WHEN (excluded.column_times->>'resumed_from')::bigint
        > coalesce(coalesce(s.column_times->>'resumed_from', s.column_times->>'other')::bigint,
            CASE WHEN s.column_times IS NULL AND s.last_heartbeat <= $18::timestamptz
            THEN (extract(epoch FROM greatest(s.last_heartbeat, '0001-01-01Z') - timestamptz 'epoch') * 1000000)::bigint END, 0)
        THEN excluded.resumed_from ELSE s.resumed_from END
WHERE s.created_at = excluded.created_at AND
    (s.host_machine = excluded.host_machine OR s.host_machine = ANY($15))
RETURNING s.instance_id,
    CASE WHEN s.status = 'closed' AND coalesce(s.closed_at, s.last_heartbeat) IS NOT NULL THEN (extract(epoch FROM
        greatest(least(coalesce(s.closed_at, s.last_heartbeat), '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000)::bigint END,
    CASE WHEN s.last_heartbeat = $18::timestamptz THEN $19::bigint END
