-- When a session of another host was read from central because somebody asked for it. NULL: it is one of this host, or is read
-- ahead. Such sessions are kept for some minutes only.
ALTER TABLE sessions ADD COLUMN read_at INTEGER;
CREATE INDEX sessions_on_demand ON sessions (read_at) WHERE read_at IS NOT NULL;
