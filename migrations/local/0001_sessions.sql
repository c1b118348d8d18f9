-- The sessions of this host, and what has yet to reach central.
-- Times are microseconds since 1970 in UTC.

CREATE TABLE sessions (
    instance_id         TEXT    NOT NULL PRIMARY KEY,
    project             TEXT    NOT NULL,
    instance_type       TEXT    NOT NULL,
    status              TEXT    NOT NULL,
    context_percent     INTEGER NOT NULL,
    current_epic        TEXT,
    last_heartbeat      INTEGER NOT NULL,
    created_at          INTEGER NOT NULL,
    closed_at           INTEGER,
    host_machine        TEXT    NOT NULL,
    claude_session_uuid TEXT,
    claude_session_path TEXT,
    -- Who may change it: the user who registered it (and root).
    owner_uid           INTEGER NOT NULL,
    -- The process that is watched, guarded against reuse of its pid by when it started.
    pid                 INTEGER,
    pid_started         INTEGER,
    -- Grows with every local change; an acknowledgement counts only for the version it names.
    version             INTEGER NOT NULL,
    -- When the oldest change that central lacks was made; NULL: central has this version.
    unsynced_since      INTEGER,
    -- Central will never take this row as it is: why, and since when.
    parked_error        TEXT,
    parked_at           INTEGER
) STRICT;

CREATE INDEX sessions_unsynced ON sessions (unsynced_since) WHERE unsynced_since IS NOT NULL;
CREATE INDEX sessions_watched ON sessions (pid) WHERE pid IS NOT NULL;

-- A session whose id another session holds in central got a new one; the old one goes on resolving here.
CREATE TABLE aliases (
    old_id      TEXT    NOT NULL PRIMARY KEY,
    instance_id TEXT    NOT NULL REFERENCES sessions (instance_id) ON UPDATE CASCADE ON DELETE CASCADE,
    made_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX aliases_instance_id ON aliases (instance_id);

-- All machines as central last told of them.
CREATE TABLE machines (
    host_machine    TEXT    NOT NULL PRIMARY KEY,
    total_sessions  INTEGER NOT NULL,
    active_sessions INTEGER NOT NULL,
    stale_sessions  INTEGER NOT NULL,
    closed_sessions INTEGER NOT NULL,
    last_activity   INTEGER,
    projects        TEXT    NOT NULL,
    last_seen       INTEGER,
    as_of           INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Single values: `machine_name` (under which the sessions are filed), `acked_batch` (the newest batch
-- in central's ledger that this store knows of).
CREATE TABLE facts (
    name  TEXT NOT NULL PRIMARY KEY,
    value ANY  NOT NULL
) STRICT, WITHOUT ROWID;
