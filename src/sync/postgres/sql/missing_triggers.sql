-- Returns the triggers that mark and announce changes and that central lacks or has disabled: name, table, and whether it
-- is there.
-- Index: of the catalog.
SELECT wanted.name, wanted.at, t.oid IS NOT NULL
FROM (VALUES ('supervisor_sessions', 'trg_supervisor_sessions_sessiond_mark'),
    ('supervisor_sessions', 'trg_supervisor_sessions_sessiond_mark_columns'),
    ('supervisor_sessions', 'trg_supervisor_sessions_sessiond_new'),
    ('supervisor_sessions', 'trg_supervisor_sessions_sessiond_changed'),
    ('supervisor_sessions', 'trg_supervisor_sessions_sessiond_gone'),
    ('supervisor_sessions', 'trg_supervisor_sessions_sessiond_truncated'),
    ('session_work', 'trg_session_work_sessiond_mark'), ('session_work', 'trg_session_work_sessiond_new'),
    ('session_work', 'trg_session_work_sessiond_changed'), ('event_store', 'trg_sessiond_note_history'),
    ('command_log', 'trg_sessiond_note_history'), ('checkpoints', 'trg_sessiond_note_history')) AS wanted (at, name)
JOIN pg_class c ON c.oid = to_regclass(wanted.at)
LEFT JOIN pg_trigger t ON t.tgrelid = c.oid AND t.tgname = wanted.name
WHERE t.tgenabled IS NULL OR t.tgenabled NOT IN ('O', 'A')
ORDER BY wanted.at, wanted.name
