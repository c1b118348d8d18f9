-- The ids by which an agent itself knows its sessions, and the writes taken in from the spool.

-- Every id of Claude Code's that led to a session, and the process that used it last: a clear gives a new id to
-- the same session, and late words may still come under the old one.
CREATE TABLE claude_ids (
    uuid        TEXT    NOT NULL PRIMARY KEY,
    instance_id TEXT    NOT NULL REFERENCES sessions (instance_id) ON UPDATE CASCADE ON DELETE CASCADE,
    pid         INTEGER,
    pid_started INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX claude_ids_instance_id ON claude_ids (instance_id);
CREATE INDEX sessions_claude_session_uuid ON sessions (claude_session_uuid) WHERE claude_session_uuid IS NOT NULL;
CREATE INDEX sessions_working_dir ON sessions (working_dir) WHERE working_dir IS NOT NULL;

-- Files of the spool whose write is in this store, and which may not be gone yet.
CREATE TABLE taken_in (
    name TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;
