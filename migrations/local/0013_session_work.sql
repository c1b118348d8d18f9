-- What a session does and works on: the newest state, of this host's sessions and of mirrored ones.
CREATE TABLE session_work (
    instance_id    TEXT    NOT NULL PRIMARY KEY REFERENCES sessions (instance_id) ON UPDATE CASCADE ON DELETE CASCADE,
    -- JSON: the activity, and what is needed to place the next event; NULL for a mirrored session.
    tracker        TEXT,
    -- JSON: what lists show.
    summary        TEXT    NOT NULL,
    -- When it changed last; grows with every change.
    recorded_at    INTEGER NOT NULL,
    -- Grows with every change of what is shared; an acknowledgement counts only for the version it names.
    version        INTEGER NOT NULL,
    synced_version INTEGER NOT NULL
) STRICT;

-- Apart, because a row is written as a whole: most reports change only the tracker.
CREATE TABLE work_snapshots (
    instance_id    TEXT    NOT NULL PRIMARY KEY REFERENCES session_work (instance_id) ON UPDATE CASCADE ON DELETE CASCADE,
    -- JSON, at most 16 KiB.
    snapshot       TEXT    NOT NULL
) STRICT;

-- The room that a snapshot takes counts as its user's.
DROP VIEW counted_usage;
DROP VIEW session_usage;

CREATE VIEW session_usage (instance_id, uid, bytes, open_sessions) AS
SELECT instance_id, owner_uid,
    2048 + ifnull(octet_length(claude_session_path), 0) + 2 * ifnull(octet_length(working_dir), 0)
        + (SELECT ifnull(sum(512 + octet_length(body)), 0) FROM records r
            WHERE r.instance_id = s.instance_id AND unsynced IS NOT NULL)
        + 256 * (SELECT count(*) FROM claude_ids c WHERE c.instance_id = s.instance_id)
        + 128 * (SELECT count(*) FROM session_processes p WHERE p.instance_id = s.instance_id)
        + (SELECT ifnull(sum(1024 + octet_length(snapshot)), 0) FROM work_snapshots w
            WHERE w.instance_id = s.instance_id),
    status <> 'closed'
FROM sessions s WHERE mirror_generation IS NULL;

CREATE VIEW counted_usage (uid, bytes, open_sessions) AS
SELECT uid, sum(bytes), sum(open_sessions) FROM (
    SELECT uid, bytes, open_sessions FROM session_usage
    UNION ALL SELECT owner_uid, 256 + octet_length(key) + ifnull(octet_length(answer), 0), 0 FROM idempotency_keys)
GROUP BY uid;

CREATE TRIGGER usage_of_new_snapshot AFTER INSERT ON work_snapshots BEGIN
    UPDATE user_usage SET bytes = bytes + 1024 + octet_length(new.snapshot)
        WHERE uid = (SELECT owner_uid FROM sessions WHERE instance_id = new.instance_id AND mirror_generation IS NULL);
END;

CREATE TRIGGER usage_of_changed_snapshot AFTER UPDATE OF snapshot ON work_snapshots BEGIN
    UPDATE user_usage SET bytes = bytes + octet_length(new.snapshot) - octet_length(old.snapshot)
        WHERE uid = (SELECT owner_uid FROM sessions WHERE instance_id = new.instance_id AND mirror_generation IS NULL);
END;

CREATE TRIGGER usage_of_deleted_snapshot AFTER DELETE ON work_snapshots BEGIN
    UPDATE user_usage SET bytes = bytes - 1024 - octet_length(old.snapshot)
        WHERE uid = (SELECT owner_uid FROM sessions WHERE instance_id = old.instance_id AND mirror_generation IS NULL);
END;
