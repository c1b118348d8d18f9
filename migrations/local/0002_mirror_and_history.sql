-- The sessions of all other machines, as central last told of them; the history of sessions; and where
-- each session ran and what it goes on from.

ALTER TABLE sessions ADD COLUMN resumed_from TEXT;
ALTER TABLE sessions ADD COLUMN working_dir TEXT;
-- NULL: a session of this host. Else the session is mirrored from central, where it was last seen in this
-- round of reading everything.
ALTER TABLE sessions ADD COLUMN mirror_round INTEGER;

CREATE INDEX sessions_project ON sessions (project);
CREATE INDEX sessions_parked ON sessions (parked_at) WHERE parked_at IS NOT NULL;

-- Sessions are found and counted by these, without their rows being read. A heartbeat of an active session of this host
-- touches none of them.
CREATE INDEX sessions_running ON sessions (project, instance_id) WHERE mirror_round IS NULL AND status = 'active';
CREATE INDEX sessions_settled ON sessions (instance_id, last_heartbeat, status, mirror_round)
    WHERE mirror_round IS NOT NULL OR status <> 'active';
CREATE INDEX sessions_resting ON sessions (last_heartbeat, status, mirror_round)
    WHERE (mirror_round IS NOT NULL OR status = 'stale') AND status <> 'closed';
CREATE INDEX sessions_resting_project ON sessions (project, last_heartbeat, status, mirror_round)
    WHERE (mirror_round IS NOT NULL OR status = 'stale') AND status <> 'closed';
CREATE INDEX sessions_resting_epic ON sessions (current_epic, last_heartbeat, status, mirror_round)
    WHERE (mirror_round IS NOT NULL OR status = 'stale') AND status <> 'closed';
CREATE INDEX sessions_ended ON sessions (status, closed_at, mirror_round)
    WHERE mirror_round IS NULL AND status <> 'active';
-- Four to six characters of a hash of six begin one of these three.
CREATE INDEX sessions_hash_6 ON sessions (substr(instance_id, -6)) WHERE status <> 'closed';
CREATE INDEX sessions_hash_5 ON sessions (substr(instance_id, -5)) WHERE status <> 'closed';
CREATE INDEX sessions_hash_4 ON sessions (substr(instance_id, -4)) WHERE status <> 'closed';

-- What happened in sessions: events, commands and checkpoints, of this host and mirrored ones.
CREATE TABLE records (
    -- The order in which they were appended here, and in which they are replayed.
    seq          INTEGER NOT NULL PRIMARY KEY,
    -- event_id or checkpoint_id in central; tells a record from another in any table.
    record_id    BLOB    NOT NULL UNIQUE,
    instance_id  TEXT    NOT NULL REFERENCES sessions (instance_id) ON UPDATE CASCADE ON DELETE CASCADE,
    -- 'event', 'command' or 'checkpoint'
    kind         TEXT    NOT NULL,
    type         TEXT    NOT NULL,
    at           INTEGER NOT NULL,
    -- What else there is to it, as a JSON object; the kind says which fields.
    body         TEXT    NOT NULL,
    -- 1: central lacks it; 0: central has it from here; NULL: it was read from central, and is not for this host to give.
    unsynced     INTEGER,
    -- Central will never take it as it is: why, and since when.
    parked_error TEXT,
    parked_at    INTEGER
) STRICT;

CREATE INDEX records_of_session ON records (instance_id, kind, at);
-- By kind, as central may lack the table for one.
CREATE INDEX records_unsynced ON records (kind, seq) WHERE unsynced = 1 AND parked_at IS NULL;
CREATE INDEX records_parked ON records (parked_at) WHERE parked_at IS NOT NULL;

-- Sessions whose context passed 80 % and that made no checkpoint since.
CREATE TABLE checkpoints_due (
    instance_id TEXT NOT NULL PRIMARY KEY REFERENCES sessions (instance_id) ON UPDATE CASCADE ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- One more single value: `central_history`, which of central's tables there are for records, and the types of
-- events that it takes, as JSON.

-- The daemons that central knows of, by the machine they run on.
CREATE TABLE hosts (
    host_machine TEXT    NOT NULL PRIMARY KEY,
    last_seen    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What machines have on them is counted from the mirror.
DROP TABLE machines;

-- More single values: `mirror_since` (what central's transactions before this one changed has been read),
-- `mirror_round` (how often everything has been read), `mirror_as_of` (when the mirror was last true),
-- `mirror_timeline` (of which central's transactions these are).
