-- The activity history: when sessions changed what they do, and how full their context was then. Bounded to some days
-- and to a number of changes a session; older ones are deleted. Without a foreign key: changes of a deleted session
-- expire like all others, so that the deletion of a session stays a deletion of one row.
CREATE TABLE activity_changes (
    -- The order in which they were recorded.
    seq             INTEGER NOT NULL PRIMARY KEY,
    instance_id     TEXT    NOT NULL,
    -- When it happened.
    at              INTEGER NOT NULL,
    -- 'working', 'waiting', 'idle' or 'failed'; NULL: nothing vouches for an activity from then on.
    activity        TEXT,
    waiting_for     TEXT,
    detail          TEXT,
    context_percent INTEGER NOT NULL,
    -- 1 until central has it; 0 afterwards, and for a mirrored session.
    unsynced        INTEGER NOT NULL
) STRICT;

CREATE INDEX activity_changes_of_session ON activity_changes (instance_id, seq);
CREATE INDEX activity_changes_by_time ON activity_changes (at);
CREATE INDEX activity_changes_unsynced ON activity_changes (instance_id, seq) WHERE unsynced = 1;
