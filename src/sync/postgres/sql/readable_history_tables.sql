-- Returns which tables of records this login may read.
-- Index: of the catalog.
SELECT coalesce(has_table_privilege(to_regclass('event_store'), 'SELECT'), false),
    coalesce(has_table_privilege(to_regclass('command_log'), 'SELECT'), false),
    coalesce(has_table_privilege(to_regclass('checkpoints'), 'SELECT'), false)
