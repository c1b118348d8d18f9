-- Reading everything from central marks what it saw here, not in the sessions' own rows: a session that did not
-- change is not written.
CREATE TABLE mirror_seen (
    instance_id TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- What the mirror gives up first when the store runs short of room: the oldest history, then closed sessions.
CREATE INDEX records_mirrored ON records (at) WHERE unsynced IS NULL;
CREATE INDEX sessions_mirrored_closed ON sessions (closed_at) WHERE mirror_round IS NOT NULL AND status = 'closed';
