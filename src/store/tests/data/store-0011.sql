-- A store of schema 11 with something of everything in it. Made by `make_golden_store` (src/store/tests/golden.rs)
-- with the operations of the program whose newest migration was 11. It never changes: later programs must open it.
PRAGMA foreign_keys = OFF;
BEGIN;
CREATE TABLE aliases (
    old_id      TEXT    NOT NULL PRIMARY KEY,
    instance_id TEXT    NOT NULL REFERENCES sessions (instance_id) ON UPDATE CASCADE ON DELETE CASCADE,
    made_at     INTEGER NOT NULL
, promised_by INTEGER) STRICT, WITHOUT ROWID;
CREATE TABLE checkpoints_due (
    instance_id TEXT NOT NULL PRIMARY KEY REFERENCES sessions (instance_id) ON UPDATE CASCADE ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE TABLE claude_ids (
    uuid        TEXT    NOT NULL PRIMARY KEY,
    instance_id TEXT    NOT NULL REFERENCES sessions (instance_id) ON UPDATE CASCADE ON DELETE CASCADE,
    pid         INTEGER,
    pid_started INTEGER
, is_left INTEGER NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID;
CREATE TABLE facts (
    name  TEXT NOT NULL PRIMARY KEY,
    value ANY  NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE hosts (
    host_machine TEXT    NOT NULL PRIMARY KEY,
    last_seen    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE idempotency_keys (
    -- Grows with each key: the oldest of a user go first.
    seq INTEGER PRIMARY KEY,
    owner_uid INTEGER NOT NULL,
    key TEXT NOT NULL,
    -- SHA-256 of the request: another request under the same key is refused.
    fingerprint BLOB NOT NULL,
    made_at INTEGER NOT NULL,
    -- What was answered, as JSON; or the record that the answer is made of.
    answer TEXT,
    record_id BLOB
);
CREATE TABLE mirror_seen (
    instance_id TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;
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
, retry_at INTEGER, parkings INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE session_processes (
    instance_id TEXT    NOT NULL REFERENCES sessions (instance_id) ON UPDATE CASCADE ON DELETE CASCADE,
    pid         INTEGER NOT NULL,
    pid_started INTEGER NOT NULL,
    PRIMARY KEY (instance_id, pid, pid_started)
) STRICT, WITHOUT ROWID;
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
, resumed_from TEXT, working_dir TEXT, mirror_round INTEGER, kind TEXT, retry_at INTEGER, parkings INTEGER NOT NULL DEFAULT 0, column_changes BLOB, synced_version INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE taken_in (
    name TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;
CREATE TABLE user_usage (
    uid           INTEGER NOT NULL PRIMARY KEY,
    -- The rows of the user's own sessions and what belongs to them, with their share of indexes and pages.
    bytes         INTEGER NOT NULL,
    -- Sessions that are not closed.
    open_sessions INTEGER NOT NULL
) STRICT;
INSERT INTO aliases (old_id, instance_id, made_at, promised_by) VALUES ('odin-PS-daaaaa', 'odin-PS-6naaaa', 1769774500000000, NULL);
INSERT INTO aliases (old_id, instance_id, made_at, promised_by) VALUES ('odin-PS-promis', 'odin-PS-vaaaaa', 1769784381000000, 1000);
INSERT INTO checkpoints_due (instance_id) VALUES ('odin-PS-laaaaa');
INSERT INTO claude_ids (uuid, instance_id, pid, pid_started, is_left) VALUES ('uuid-1', 'odin-PS-vaaaaa', 121, 77, 0);
INSERT INTO claude_ids (uuid, instance_id, pid, pid_started, is_left) VALUES ('uuid-2', 'odin-PS-xaaaaa', 123, 77, 0);
INSERT INTO facts (name, value) VALUES ('acked_batch', 171);
INSERT INTO facts (name, value) VALUES ('central_history', '[["usable","usable","without_zone"],["error","tool_use"]]');
INSERT INTO facts (name, value) VALUES ('machine_name', 'odin3');
INSERT INTO facts (name, value) VALUES ('mirror_as_of', 1769784370000000);
INSERT INTO facts (name, value) VALUES ('mirror_since', 4711);
INSERT INTO facts (name, value) VALUES ('mirror_timeline', 'timeline 7');
INSERT INTO facts (name, value) VALUES ('next_batch', 181);
INSERT INTO facts (name, value) VALUES ('next_batch_but_one', 191);
INSERT INTO hosts (host_machine, last_seen) VALUES ('odin4', 1769784300000000);
INSERT INTO idempotency_keys (seq, owner_uid, key, fingerprint, made_at, answer, record_id) VALUES (1, 1000, 'register', X'0337391C8514B999CC80B550D8F5F0868F324C3A47715B8D4389D26028665C5B', 1769784200000000, '{"id":"odin-PS-5aaaaa"}', NULL);
INSERT INTO idempotency_keys (seq, owner_uid, key, fingerprint, made_at, answer, record_id) VALUES (2, 1000, 'append', X'0337391C8514B999CC80B550D8F5F0868F324C3A47715B8D4389D26028665C5B', 1769784201000000, NULL, X'0000000000000000000000000000000F');
INSERT INTO records (seq, record_id, instance_id, kind, type, at, body, unsynced, parked_error, parked_at, retry_at, parkings) VALUES (1, X'00000000000000000000000000000001', 'odin-PS-baaaaa', 'event', 'tool_use', 1769774601000000, '{"data":{"text":"it''s ünicöde\n"}}', 0, NULL, NULL, NULL, 0);
INSERT INTO records (seq, record_id, instance_id, kind, type, at, body, unsynced, parked_error, parked_at, retry_at, parkings) VALUES (2, X'00000000000000000000000000000002', 'odin-PS-baaaaa', 'event', 'error', 1769774602000000, '{"data":{"text":"it''s ünicöde\n"}}', 1, 'central refuses errors', 1769774500000000, 1769774560000000, 1);
INSERT INTO records (seq, record_id, instance_id, kind, type, at, body, unsynced, parked_error, parked_at, retry_at, parkings) VALUES (3, X'0000000000000000000000000000000B', 'odin-PS-laaaaa', 'event', 'tool_use', 1769774611000000, '{"data":{"text":"it''s ünicöde\n"}}', 1, NULL, NULL, NULL, 0);
INSERT INTO records (seq, record_id, instance_id, kind, type, at, body, unsynced, parked_error, parked_at, retry_at, parkings) VALUES (4, X'0000000000000000000000000000000C', 'odin-PS-laaaaa', 'event', 'of_no_known_type', 1769774612000000, '{"data":{"text":"it''s ünicöde\n"}}', 1, 'central''s event_store takes no event of this type; it is kept here', 1769774612000000, NULL, 0);
INSERT INTO records (seq, record_id, instance_id, kind, type, at, body, unsynced, parked_error, parked_at, retry_at, parkings) VALUES (5, X'0000000000000000000000000000000D', 'odin-PS-laaaaa', 'command', 'explicit', 1769774613000000, '{"action":"Build \"it\"","parameters":{},"success":true,"tags":[]}', 1, NULL, NULL, NULL, 0);
INSERT INTO records (seq, record_id, instance_id, kind, type, at, body, unsynced, parked_error, parked_at, retry_at, parkings) VALUES (6, X'0000000000000000000000000000000E', 'odin-PS-baaaaa', 'checkpoint', 'manual', 1769774614000000, '{"context_window_percent":55,"work_state":{"todo":["one","two"]}}', 1, NULL, NULL, NULL, 0);
INSERT INTO records (seq, record_id, instance_id, kind, type, at, body, unsynced, parked_error, parked_at, retry_at, parkings) VALUES (7, X'0000000000000000000000000000000F', 'odin-PS-laaaaa', 'event', 'tool_use', 1769784201000000, '{"data":{"text":"it''s ünicöde\n"}}', 1, NULL, NULL, NULL, 0);
INSERT INTO records (seq, record_id, instance_id, kind, type, at, body, unsynced, parked_error, parked_at, retry_at, parkings) VALUES (8, X'00000000000000000000000000000065', 'odin-PS-remot1', 'event', 'tool_use', 1769774460000000, '{"data":{"tool":"rg"}}', NULL, NULL, NULL, NULL, 0);
INSERT INTO records (seq, record_id, instance_id, kind, type, at, body, unsynced, parked_error, parked_at, retry_at, parkings) VALUES (9, X'00000000000000000000000000000066', 'odin-PS-remot2', 'event', 'tool_use', 1769774460000000, '{"data":{"tool":"rg"}}', NULL, NULL, NULL, NULL, 0);
INSERT INTO session_processes (instance_id, pid, pid_started) VALUES ('odin-PS-vaaaaa', 122, 77);
INSERT INTO sessions (rowid, instance_id, project, instance_type, status, context_percent, current_epic, last_heartbeat, created_at, closed_at, host_machine, claude_session_uuid, claude_session_path, owner_uid, pid, pid_started, version, unsynced_since, parked_error, parked_at, resumed_from, working_dir, mirror_round, kind, retry_at, parkings, column_changes, synced_version) VALUES (1, 'odin-PS-baaaaa', 'odin', 'PS', 'active', 40, NULL, 1769784390000000, 1769774401000000, NULL, 'odin3', NULL, NULL, 1000, 101, 77, 2, 1769784390000000, NULL, NULL, NULL, '/home/o''dìn', NULL, NULL, NULL, 0, X'0200000000000000801DE5099C4906000100000000000000401281B6994906000100000000000000401281B6994906000100000000000000401281B6994906000100000000000000401281B6994906000100000000000000401281B699490600', 1);
INSERT INTO sessions (rowid, instance_id, project, instance_type, status, context_percent, current_epic, last_heartbeat, created_at, closed_at, host_machine, claude_session_uuid, claude_session_path, owner_uid, pid, pid_started, version, unsynced_since, parked_error, parked_at, resumed_from, working_dir, mirror_round, kind, retry_at, parkings, column_changes, synced_version) VALUES (2, 'odin-PS-caaaaa', 'odin', 'PS', 'active', 12, 'epic-17', 1769774402000000, 1769774402000000, NULL, 'odin3', NULL, NULL, 1000, NULL, NULL, 1, 1769774402000000, 'value "x" is too long', 1769774500000000, NULL, '/home/o''dìn', NULL, NULL, 1769774560000000, 1, X'0100000000000000805490B6994906000100000000000000805490B6994906000100000000000000805490B6994906000100000000000000805490B6994906000100000000000000805490B6994906000100000000000000805490B699490600', 0);
INSERT INTO sessions (rowid, instance_id, project, instance_type, status, context_percent, current_epic, last_heartbeat, created_at, closed_at, host_machine, claude_session_uuid, claude_session_path, owner_uid, pid, pid_started, version, unsynced_since, parked_error, parked_at, resumed_from, working_dir, mirror_round, kind, retry_at, parkings, column_changes, synced_version) VALUES (3, 'odin-PS-6naaaa', 'odin', 'PS', 'active', 12, NULL, 1769774403000000, 1769774403000000, NULL, 'odin3', NULL, NULL, 1001, NULL, NULL, 2, NULL, NULL, NULL, NULL, '/home/o''dìn', NULL, NULL, NULL, 0, X'0100000000000000C0969FB6994906000100000000000000C0969FB6994906000100000000000000C0969FB6994906000100000000000000C0969FB6994906000100000000000000C0969FB6994906000100000000000000C0969FB699490600', 2);
INSERT INTO sessions (rowid, instance_id, project, instance_type, status, context_percent, current_epic, last_heartbeat, created_at, closed_at, host_machine, claude_session_uuid, claude_session_path, owner_uid, pid, pid_started, version, unsynced_since, parked_error, parked_at, resumed_from, working_dir, mirror_round, kind, retry_at, parkings, column_changes, synced_version) VALUES (4, 'odin-PS-eaaaaa', 'odin', 'PS', 'closed', 12, 'epic-17', 1769774404000000, 1769774404000000, 1769779400000000, 'odin3', NULL, NULL, 1000, NULL, NULL, 2, NULL, NULL, NULL, NULL, '/home/o''dìn', NULL, NULL, NULL, 0, X'010000000000000000D9AEB699490600010000000000000000D9AEB699490600010000000000000000D9AEB699490600010000000000000000D9AEB699490600010000000000000000D9AEB699490600010000000000000000D9AEB699490600', 2);
INSERT INTO sessions (rowid, instance_id, project, instance_type, status, context_percent, current_epic, last_heartbeat, created_at, closed_at, host_machine, claude_session_uuid, claude_session_path, owner_uid, pid, pid_started, version, unsynced_since, parked_error, parked_at, resumed_from, working_dir, mirror_round, kind, retry_at, parkings, column_changes, synced_version) VALUES (5, 'odin-PS-faaaaa', 'odin', 'PS', 'closed', 12, NULL, 1769774405000000, 1769774405000000, 1769774406000000, 'odin3', NULL, NULL, 1000, NULL, NULL, 2, NULL, NULL, NULL, NULL, '/home/o''dìn', 0, NULL, NULL, 0, X'0100000000000000401BBEB6994906000100000000000000401BBEB6994906000100000000000000401BBEB6994906000100000000000000401BBEB6994906000100000000000000401BBEB6994906000100000000000000401BBEB699490600', 2);
INSERT INTO sessions (rowid, instance_id, project, instance_type, status, context_percent, current_epic, last_heartbeat, created_at, closed_at, host_machine, claude_session_uuid, claude_session_path, owner_uid, pid, pid_started, version, unsynced_since, parked_error, parked_at, resumed_from, working_dir, mirror_round, kind, retry_at, parkings, column_changes, synced_version) VALUES (6, 'odin-PS-laaaaa', 'odin', 'PS', 'active', 91, NULL, 1769784395000000, 1769774411000000, NULL, 'odin3', NULL, NULL, 1000, 111, 77, 2, 1769774411000000, NULL, NULL, NULL, '/home/o''dìn', NULL, NULL, NULL, 0, X'0200000000000000C068310A9C4906000100000000000000C0A819B7994906000100000000000000C0A819B7994906000100000000000000C0A819B7994906000100000000000000C0A819B7994906000100000000000000C0A819B799490600', 0);
INSERT INTO sessions (rowid, instance_id, project, instance_type, status, context_percent, current_epic, last_heartbeat, created_at, closed_at, host_machine, claude_session_uuid, claude_session_path, owner_uid, pid, pid_started, version, unsynced_since, parked_error, parked_at, resumed_from, working_dir, mirror_round, kind, retry_at, parkings, column_changes, synced_version) VALUES (7, 'odin-PS-maaaaa', 'odin', 'PS', 'active', 12, 'epic-17', 1769774412000000, 1769774412000000, NULL, 'odin3', NULL, NULL, 1001, NULL, NULL, 1, 1769774412000000, NULL, NULL, NULL, '/home/o''dìn', NULL, NULL, NULL, 0, X'010000000000000000EB28B799490600010000000000000000EB28B799490600010000000000000000EB28B799490600010000000000000000EB28B799490600010000000000000000EB28B799490600010000000000000000EB28B799490600', 0);
INSERT INTO sessions (rowid, instance_id, project, instance_type, status, context_percent, current_epic, last_heartbeat, created_at, closed_at, host_machine, claude_session_uuid, claude_session_path, owner_uid, pid, pid_started, version, unsynced_since, parked_error, parked_at, resumed_from, working_dir, mirror_round, kind, retry_at, parkings, column_changes, synced_version) VALUES (8, 'odin-PS-naaaaa', 'odin', 'PS', 'stale', 12, NULL, 1769774413000000, 1769774413000000, NULL, 'odin3', NULL, NULL, 1000, NULL, NULL, 2, 1769774413000000, NULL, NULL, NULL, '/home/o''dìn', NULL, NULL, NULL, 0, X'0100000000000000402D38B7994906000100000000000000402D38B7994906000100000000000000402D38B7994906000100000000000000402D38B7994906000100000000000000402D38B7994906000100000000000000402D38B799490600', 0);
INSERT INTO sessions (rowid, instance_id, project, instance_type, status, context_percent, current_epic, last_heartbeat, created_at, closed_at, host_machine, claude_session_uuid, claude_session_path, owner_uid, pid, pid_started, version, unsynced_since, parked_error, parked_at, resumed_from, working_dir, mirror_round, kind, retry_at, parkings, column_changes, synced_version) VALUES (9, 'odin-PS-vaaaaa', 'odin', 'PS', 'active', 0, NULL, 1769784381000000, 1769784380000000, NULL, 'odin3', 'uuid-1', NULL, 1000, 121, 77, 2, 1769784380000000, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, X'010000000000000000874C099C490600010000000000000000874C099C490600010000000000000000874C099C490600010000000000000000874C099C490600010000000000000000874C099C490600010000000000000000874C099C490600', 0);
INSERT INTO sessions (rowid, instance_id, project, instance_type, status, context_percent, current_epic, last_heartbeat, created_at, closed_at, host_machine, claude_session_uuid, claude_session_path, owner_uid, pid, pid_started, version, unsynced_since, parked_error, parked_at, resumed_from, working_dir, mirror_round, kind, retry_at, parkings, column_changes, synced_version) VALUES (10, 'odin-PS-xaaaaa', 'odin', 'PS', 'active', 0, NULL, 1769783400000000, 1769783400000000, NULL, 'odin3', 'uuid-2', NULL, 1000, 123, 77, 1, 1769783400000000, NULL, NULL, NULL, NULL, NULL, 'headless', NULL, 0, X'010000000000000000EAE2CE9B490600010000000000000000EAE2CE9B490600010000000000000000EAE2CE9B490600010000000000000000EAE2CE9B490600010000000000000000EAE2CE9B490600010000000000000000EAE2CE9B490600', 0);
INSERT INTO sessions (rowid, instance_id, project, instance_type, status, context_percent, current_epic, last_heartbeat, created_at, closed_at, host_machine, claude_session_uuid, claude_session_path, owner_uid, pid, pid_started, version, unsynced_since, parked_error, parked_at, resumed_from, working_dir, mirror_round, kind, retry_at, parkings, column_changes, synced_version) VALUES (11, 'odin-PS-5aaaaa', 'odin', 'PS', 'active', 12, NULL, 1769784200000000, 1769784200000000, NULL, 'odin3', NULL, NULL, 1000, NULL, NULL, 1, 1769784200000000, NULL, NULL, NULL, '/home/o''dìn', NULL, NULL, NULL, 0, X'010000000000000000F291FE9B490600010000000000000000F291FE9B490600010000000000000000F291FE9B490600010000000000000000F291FE9B490600010000000000000000F291FE9B490600010000000000000000F291FE9B490600', 0);
INSERT INTO sessions (rowid, instance_id, project, instance_type, status, context_percent, current_epic, last_heartbeat, created_at, closed_at, host_machine, claude_session_uuid, claude_session_path, owner_uid, pid, pid_started, version, unsynced_since, parked_error, parked_at, resumed_from, working_dir, mirror_round, kind, retry_at, parkings, column_changes, synced_version) VALUES (12, 'odin-PS-spool1', 'odin', 'PS', 'closed', 12, NULL, 1769774700000000, 1769774700000000, 1769774700000000, 'odin3', NULL, NULL, 1000, NULL, NULL, 2, 1769774700000000, NULL, NULL, NULL, '/home/o''dìn', NULL, NULL, NULL, 0, X'0100000000000000007353C8994906000100000000000000007353C8994906000100000000000000007353C8994906000100000000000000007353C8994906000100000000000000007353C8994906000100000000000000007353C899490600', 0);
INSERT INTO sessions (rowid, instance_id, project, instance_type, status, context_percent, current_epic, last_heartbeat, created_at, closed_at, host_machine, claude_session_uuid, claude_session_path, owner_uid, pid, pid_started, version, unsynced_since, parked_error, parked_at, resumed_from, working_dir, mirror_round, kind, retry_at, parkings, column_changes, synced_version) VALUES (13, 'odin-PS-remot1', 'odin', 'PS', 'active', 12, 'epic-9', 1769784350000000, 1769784350000000, NULL, 'odin4', NULL, NULL, 0, NULL, NULL, 0, NULL, NULL, NULL, NULL, '/home/o''dìn', 0, NULL, NULL, 0, NULL, 0);
INSERT INTO sessions (rowid, instance_id, project, instance_type, status, context_percent, current_epic, last_heartbeat, created_at, closed_at, host_machine, claude_session_uuid, claude_session_path, owner_uid, pid, pid_started, version, unsynced_since, parked_error, parked_at, resumed_from, working_dir, mirror_round, kind, retry_at, parkings, column_changes, synced_version) VALUES (14, 'odin-PS-remot2', 'odin', 'PS', 'closed', 12, 'epic-9', 1769774420000000, 1769774420000000, 1769774490000000, 'odin5', NULL, NULL, 0, NULL, NULL, 0, NULL, NULL, NULL, NULL, '/home/o''dìn', 0, NULL, NULL, 0, NULL, 0);
INSERT INTO taken_in (name) VALUES ('1.json');
INSERT INTO taken_in (name) VALUES ('2.json');
INSERT INTO user_usage (uid, bytes, open_sessions) VALUES (1000, 23684, 7);
INSERT INTO user_usage (uid, bytes, open_sessions) VALUES (1001, 4144, 2);
CREATE INDEX aliases_instance_id ON aliases (instance_id, made_at);
CREATE INDEX aliases_promised ON aliases (promised_by, made_at) WHERE promised_by IS NOT NULL;
CREATE INDEX claude_ids_instance_id ON claude_ids (instance_id);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (made_at);
CREATE INDEX idempotency_keys_in_order ON idempotency_keys (owner_uid, seq);
CREATE UNIQUE INDEX idempotency_keys_of_user ON idempotency_keys (owner_uid, key);
CREATE INDEX records_mirrored ON records (at) WHERE unsynced IS NULL;
CREATE INDEX records_of_session ON records (instance_id, kind, at);
CREATE INDEX records_parked ON records (parked_at) WHERE parked_at IS NOT NULL;
CREATE INDEX records_unsynced ON records (kind, seq) WHERE unsynced = 1 AND parked_at IS NULL;
CREATE INDEX records_unsynced_of_session ON records (instance_id, kind) WHERE unsynced = 1;
CREATE INDEX sessions_claude_session_uuid ON sessions (claude_session_uuid) WHERE claude_session_uuid IS NOT NULL;
CREATE INDEX sessions_ended ON sessions (status, closed_at, mirror_round)
    WHERE mirror_round IS NULL AND status <> 'active';
CREATE INDEX sessions_hash_4 ON sessions (substr(instance_id, -4)) WHERE status <> 'closed';
CREATE INDEX sessions_hash_5 ON sessions (substr(instance_id, -5)) WHERE status <> 'closed';
CREATE INDEX sessions_hash_6 ON sessions (substr(instance_id, -6)) WHERE status <> 'closed';
CREATE INDEX sessions_mirrored_closed ON sessions (closed_at) WHERE mirror_round IS NOT NULL AND status = 'closed';
CREATE INDEX sessions_parked ON sessions (parked_at) WHERE parked_at IS NOT NULL;
CREATE INDEX sessions_project ON sessions (project);
CREATE INDEX sessions_resting ON sessions (last_heartbeat, status, mirror_round)
    WHERE (mirror_round IS NOT NULL OR status = 'stale') AND status <> 'closed';
CREATE INDEX sessions_resting_epic ON sessions (current_epic, last_heartbeat, status, mirror_round)
    WHERE (mirror_round IS NOT NULL OR status = 'stale') AND status <> 'closed';
CREATE INDEX sessions_resting_project ON sessions (project, last_heartbeat, status, mirror_round)
    WHERE (mirror_round IS NOT NULL OR status = 'stale') AND status <> 'closed';
CREATE INDEX sessions_running ON sessions (project, instance_id) WHERE mirror_round IS NULL AND status = 'active';
CREATE INDEX sessions_settled ON sessions (instance_id, last_heartbeat, status, mirror_round)
    WHERE mirror_round IS NOT NULL OR status <> 'active';
CREATE INDEX sessions_unsynced ON sessions (unsynced_since) WHERE unsynced_since IS NOT NULL;
CREATE INDEX sessions_watched ON sessions (pid) WHERE pid IS NOT NULL;
CREATE INDEX sessions_working_dir ON sessions (working_dir) WHERE working_dir IS NOT NULL;
CREATE TRIGGER promise_of_new_session AFTER INSERT ON sessions BEGIN
    DELETE FROM aliases WHERE old_id = new.instance_id AND promised_by IS NOT NULL;
END;
CREATE TRIGGER promise_of_renamed_session AFTER UPDATE OF instance_id ON sessions BEGIN
    DELETE FROM aliases WHERE old_id = new.instance_id AND promised_by IS NOT NULL;
END;
CREATE TRIGGER usage_of_closed_session AFTER UPDATE OF status ON sessions
WHEN new.mirror_round IS NULL AND (old.status = 'closed') <> (new.status = 'closed') BEGIN
    UPDATE user_usage SET open_sessions = open_sessions + iif(new.status = 'closed', -1, 1) WHERE uid = new.owner_uid;
END;
CREATE TRIGGER usage_of_deleted_claude_id AFTER DELETE ON claude_ids BEGIN
    UPDATE user_usage SET bytes = bytes - 256
        WHERE uid = (SELECT owner_uid FROM sessions WHERE instance_id = old.instance_id AND mirror_round IS NULL);
END;
CREATE TRIGGER usage_of_deleted_key AFTER DELETE ON idempotency_keys BEGIN
    UPDATE user_usage SET bytes = bytes - 256 - octet_length(old.key) - ifnull(octet_length(old.answer), 0)
        WHERE uid = old.owner_uid;
END;
CREATE TRIGGER usage_of_deleted_process AFTER DELETE ON session_processes BEGIN
    UPDATE user_usage SET bytes = bytes - 128
        WHERE uid = (SELECT owner_uid FROM sessions WHERE instance_id = old.instance_id AND mirror_round IS NULL);
END;
CREATE TRIGGER usage_of_deleted_record AFTER DELETE ON records WHEN old.unsynced IS NOT NULL BEGIN
    UPDATE user_usage SET bytes = bytes - 512 - octet_length(old.body)
        WHERE uid = (SELECT owner_uid FROM sessions WHERE instance_id = old.instance_id AND mirror_round IS NULL);
END;
CREATE TRIGGER usage_of_deleted_session BEFORE DELETE ON sessions WHEN old.mirror_round IS NULL BEGIN
    UPDATE user_usage SET bytes = user_usage.bytes - u.bytes, open_sessions = user_usage.open_sessions - u.open_sessions
        FROM session_usage u WHERE u.instance_id = old.instance_id AND user_usage.uid = u.uid;
END;
CREATE TRIGGER usage_of_moved_session AFTER UPDATE OF claude_session_path, working_dir ON sessions
WHEN new.mirror_round IS NULL BEGIN
    UPDATE user_usage SET bytes = bytes
            + ifnull(octet_length(new.claude_session_path), 0) + 2 * ifnull(octet_length(new.working_dir), 0)
            - ifnull(octet_length(old.claude_session_path), 0) - 2 * ifnull(octet_length(old.working_dir), 0)
        WHERE uid = new.owner_uid;
END;
CREATE TRIGGER usage_of_new_claude_id AFTER INSERT ON claude_ids BEGIN
    UPDATE user_usage SET bytes = bytes + 256
        WHERE uid = (SELECT owner_uid FROM sessions WHERE instance_id = new.instance_id AND mirror_round IS NULL);
END;
CREATE TRIGGER usage_of_new_key AFTER INSERT ON idempotency_keys BEGIN
    INSERT INTO user_usage (uid, bytes, open_sessions)
        VALUES (new.owner_uid, 256 + octet_length(new.key) + ifnull(octet_length(new.answer), 0), 0)
        ON CONFLICT (uid) DO UPDATE SET bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER usage_of_new_process AFTER INSERT ON session_processes BEGIN
    UPDATE user_usage SET bytes = bytes + 128
        WHERE uid = (SELECT owner_uid FROM sessions WHERE instance_id = new.instance_id AND mirror_round IS NULL);
END;
CREATE TRIGGER usage_of_new_record AFTER INSERT ON records WHEN new.unsynced IS NOT NULL BEGIN
    UPDATE user_usage SET bytes = bytes + 512 + octet_length(new.body)
        WHERE uid = (SELECT owner_uid FROM sessions WHERE instance_id = new.instance_id AND mirror_round IS NULL);
END;
CREATE TRIGGER usage_of_new_session AFTER INSERT ON sessions WHEN new.mirror_round IS NULL BEGIN
    INSERT INTO user_usage (uid, bytes, open_sessions)
        SELECT uid, bytes, open_sessions FROM session_usage WHERE instance_id = new.instance_id
        ON CONFLICT (uid) DO UPDATE
            SET bytes = bytes + excluded.bytes, open_sessions = open_sessions + excluded.open_sessions;
END;
CREATE TRIGGER usage_of_pruned_session BEFORE UPDATE OF mirror_round ON sessions
WHEN old.mirror_round IS NULL AND new.mirror_round IS NOT NULL BEGIN
    UPDATE user_usage SET bytes = user_usage.bytes - u.bytes, open_sessions = user_usage.open_sessions - u.open_sessions
        FROM session_usage u WHERE u.instance_id = old.instance_id AND user_usage.uid = u.uid;
END;
CREATE VIEW counted_usage (uid, bytes, open_sessions) AS
SELECT uid, sum(bytes), sum(open_sessions) FROM (
    SELECT uid, bytes, open_sessions FROM session_usage
    UNION ALL SELECT owner_uid, 256 + octet_length(key) + ifnull(octet_length(answer), 0), 0 FROM idempotency_keys)
GROUP BY uid;
CREATE VIEW session_usage (instance_id, uid, bytes, open_sessions) AS
SELECT instance_id, owner_uid,
    2048 + ifnull(octet_length(claude_session_path), 0) + 2 * ifnull(octet_length(working_dir), 0)
        + (SELECT ifnull(sum(512 + octet_length(body)), 0) FROM records r
            WHERE r.instance_id = s.instance_id AND unsynced IS NOT NULL)
        + 256 * (SELECT count(*) FROM claude_ids c WHERE c.instance_id = s.instance_id)
        + 128 * (SELECT count(*) FROM session_processes p WHERE p.instance_id = s.instance_id),
    status <> 'closed'
FROM sessions s WHERE mirror_round IS NULL;
PRAGMA user_version = 11;
COMMIT;
