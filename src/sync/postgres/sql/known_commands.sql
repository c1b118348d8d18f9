-- Returns which of these records ($1) central has as commands. Commands have no key of their own, so those of sessiond
-- carry the record's id.
-- Index: idx_sessiond_command_record.
SELECT context_data->>'record_id' FROM command_log
WHERE context_data ? 'record_id' AND context_data->>'record_id' = ANY($1)
