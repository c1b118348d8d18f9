-- Which agent runs a session, beside what it does. All columns are nullable: a daemon of an earlier version leaves them.
-- May be run any number of times, with psql -f or `sessiond migrate`, after the files before it. The rights on the table
-- are those on these columns.

ALTER TABLE session_work ADD COLUMN IF NOT EXISTS agent TEXT;
ALTER TABLE session_work ADD COLUMN IF NOT EXISTS agent_session_id TEXT;
ALTER TABLE session_work ADD COLUMN IF NOT EXISTS agent_version TEXT;

COMMENT ON COLUMN session_work.agent IS 'claude-code, codex, opencode, cursor, copilot, gemini or other; null: not known';
COMMENT ON COLUMN session_work.agent_session_id IS 'The agent''s own id of the conversation, which continues it';
