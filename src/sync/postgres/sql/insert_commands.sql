-- Inserts commands in order. Times after central's present are cut to it.
-- Index: none, only inserts.
INSERT INTO command_log (instance_id, command_type, action, tool_name, parameters, result, error_message,
    success, execution_time_ms, tags, context_data, created_at)
SELECT p.id, p.command_type, p.action, p.tool_name, p.parameters::jsonb, p.result::jsonb, p.error_message,
    p.success, p.took, p.tags::jsonb, jsonb_build_object('record_id', p.record_id),
    least((timestamptz 'epoch' + p.at * interval '1 microsecond'), now())
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
    $9::bool[], $10::int[], $11::text[], $12::bigint[]) WITH ORDINALITY AS p (record_id, id, command_type,
    action, tool_name, parameters, result, error_message, success, took, tags, at, place) ORDER BY place
