-- How much of the store each user of this machine takes, so that none can fill it for all; and promised ids, which are
-- bounded too.

-- Kept by the triggers below: whatever deletes a row gives the room back. A heartbeat changes none of the columns that
-- they name, so it does not reach them.
CREATE TABLE user_usage (
    uid           INTEGER NOT NULL PRIMARY KEY,
    -- The rows of the user's own sessions and what belongs to them, with their share of indexes and pages.
    bytes         INTEGER NOT NULL,
    -- Sessions that are not closed.
    open_sessions INTEGER NOT NULL
) STRICT;

-- What each session of this host takes.
CREATE VIEW session_usage (instance_id, uid, bytes, open_sessions) AS
SELECT instance_id, owner_uid,
    2048 + ifnull(octet_length(claude_session_path), 0) + 2 * ifnull(octet_length(working_dir), 0)
        + (SELECT ifnull(sum(512 + octet_length(body)), 0) FROM records r
            WHERE r.instance_id = s.instance_id AND unsynced IS NOT NULL)
        + 256 * (SELECT count(*) FROM claude_ids c WHERE c.instance_id = s.instance_id)
        + 128 * (SELECT count(*) FROM session_processes p WHERE p.instance_id = s.instance_id),
    status <> 'closed'
FROM sessions s WHERE mirror_round IS NULL;

-- What user_usage must hold, counted anew from all rows.
CREATE VIEW counted_usage (uid, bytes, open_sessions) AS
SELECT uid, sum(bytes), sum(open_sessions) FROM (
    SELECT uid, bytes, open_sessions FROM session_usage
    UNION ALL SELECT owner_uid, 256 + octet_length(key) + ifnull(octet_length(answer), 0), 0 FROM idempotency_keys)
GROUP BY uid;

INSERT INTO user_usage (uid, bytes, open_sessions) SELECT uid, bytes, open_sessions FROM counted_usage;

CREATE TRIGGER usage_of_new_session AFTER INSERT ON sessions WHEN new.mirror_round IS NULL BEGIN
    INSERT INTO user_usage (uid, bytes, open_sessions)
        SELECT uid, bytes, open_sessions FROM session_usage WHERE instance_id = new.instance_id
        ON CONFLICT (uid) DO UPDATE
            SET bytes = bytes + excluded.bytes, open_sessions = open_sessions + excluded.open_sessions;
END;

CREATE TRIGGER usage_of_deleted_session BEFORE DELETE ON sessions WHEN old.mirror_round IS NULL BEGIN
    UPDATE user_usage SET bytes = user_usage.bytes - u.bytes, open_sessions = user_usage.open_sessions - u.open_sessions
        FROM session_usage u WHERE u.instance_id = old.instance_id AND user_usage.uid = u.uid;
END;

-- A session that is pruned is one of central's, which this host mirrors.
CREATE TRIGGER usage_of_pruned_session BEFORE UPDATE OF mirror_round ON sessions
WHEN old.mirror_round IS NULL AND new.mirror_round IS NOT NULL BEGIN
    UPDATE user_usage SET bytes = user_usage.bytes - u.bytes, open_sessions = user_usage.open_sessions - u.open_sessions
        FROM session_usage u WHERE u.instance_id = old.instance_id AND user_usage.uid = u.uid;
END;

CREATE TRIGGER usage_of_closed_session AFTER UPDATE OF status ON sessions
WHEN new.mirror_round IS NULL AND (old.status = 'closed') <> (new.status = 'closed') BEGIN
    UPDATE user_usage SET open_sessions = open_sessions + iif(new.status = 'closed', -1, 1) WHERE uid = new.owner_uid;
END;

CREATE TRIGGER usage_of_moved_session AFTER UPDATE OF claude_session_path, working_dir ON sessions
WHEN new.mirror_round IS NULL BEGIN
    UPDATE user_usage SET bytes = bytes
            + ifnull(octet_length(new.claude_session_path), 0) + 2 * ifnull(octet_length(new.working_dir), 0)
            - ifnull(octet_length(old.claude_session_path), 0) - 2 * ifnull(octet_length(old.working_dir), 0)
        WHERE uid = new.owner_uid;
END;

-- When a session is deleted, what belongs to it has been subtracted with it and finds no owner any more.
CREATE TRIGGER usage_of_new_record AFTER INSERT ON records WHEN new.unsynced IS NOT NULL BEGIN
    UPDATE user_usage SET bytes = bytes + 512 + octet_length(new.body)
        WHERE uid = (SELECT owner_uid FROM sessions WHERE instance_id = new.instance_id AND mirror_round IS NULL);
END;

CREATE TRIGGER usage_of_deleted_record AFTER DELETE ON records WHEN old.unsynced IS NOT NULL BEGIN
    UPDATE user_usage SET bytes = bytes - 512 - octet_length(old.body)
        WHERE uid = (SELECT owner_uid FROM sessions WHERE instance_id = old.instance_id AND mirror_round IS NULL);
END;

CREATE TRIGGER usage_of_new_claude_id AFTER INSERT ON claude_ids BEGIN
    UPDATE user_usage SET bytes = bytes + 256
        WHERE uid = (SELECT owner_uid FROM sessions WHERE instance_id = new.instance_id AND mirror_round IS NULL);
END;

CREATE TRIGGER usage_of_deleted_claude_id AFTER DELETE ON claude_ids BEGIN
    UPDATE user_usage SET bytes = bytes - 256
        WHERE uid = (SELECT owner_uid FROM sessions WHERE instance_id = old.instance_id AND mirror_round IS NULL);
END;

CREATE TRIGGER usage_of_new_process AFTER INSERT ON session_processes BEGIN
    UPDATE user_usage SET bytes = bytes + 128
        WHERE uid = (SELECT owner_uid FROM sessions WHERE instance_id = new.instance_id AND mirror_round IS NULL);
END;

CREATE TRIGGER usage_of_deleted_process AFTER DELETE ON session_processes BEGIN
    UPDATE user_usage SET bytes = bytes - 128
        WHERE uid = (SELECT owner_uid FROM sessions WHERE instance_id = old.instance_id AND mirror_round IS NULL);
END;

CREATE TRIGGER usage_of_new_key AFTER INSERT ON idempotency_keys BEGIN
    INSERT INTO user_usage (uid, bytes, open_sessions)
        VALUES (new.owner_uid, 256 + octet_length(new.key) + ifnull(octet_length(new.answer), 0), 0)
        ON CONFLICT (uid) DO UPDATE SET bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER usage_of_deleted_key AFTER DELETE ON idempotency_keys BEGIN
    UPDATE user_usage SET bytes = bytes - 256 - octet_length(old.key) - ifnull(octet_length(old.answer), 0)
        WHERE uid = old.owner_uid;
END;

-- Who was promised the id, for an alias that a promise made; NULL: the session was known by it. Of earlier aliases it is
-- not known which they are.
ALTER TABLE aliases ADD COLUMN promised_by INTEGER;

CREATE INDEX aliases_promised ON aliases (promised_by, made_at) WHERE promised_by IS NOT NULL;

-- A promised id gives way to a session of that id.
CREATE TRIGGER promise_of_new_session AFTER INSERT ON sessions BEGIN
    DELETE FROM aliases WHERE old_id = new.instance_id AND promised_by IS NOT NULL;
END;

CREATE TRIGGER promise_of_renamed_session AFTER UPDATE OF instance_id ON sessions BEGIN
    DELETE FROM aliases WHERE old_id = new.instance_id AND promised_by IS NOT NULL;
END;
