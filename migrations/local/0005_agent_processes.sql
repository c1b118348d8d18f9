-- Which processes run a conversation, which of an agent's own ids it has left, and what kind of session it is.

-- 'interactive', 'headless' (`claude -p` and SDKs) or 'background'; NULL: unknown.
ALTER TABLE sessions ADD COLUMN kind TEXT;

-- 1: its process ended or left this conversation; late reports under this id do not make it the current one again.
ALTER TABLE claude_ids ADD COLUMN is_left INTEGER NOT NULL DEFAULT 0;

-- Processes that run a session beside the one in `sessions`: one conversation can be open in several.
CREATE TABLE session_processes (
    instance_id TEXT    NOT NULL REFERENCES sessions (instance_id) ON UPDATE CASCADE ON DELETE CASCADE,
    pid         INTEGER NOT NULL,
    pid_started INTEGER NOT NULL,
    PRIMARY KEY (instance_id, pid, pid_started)
) STRICT, WITHOUT ROWID;
