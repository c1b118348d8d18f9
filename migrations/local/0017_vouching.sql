-- The host that vouches for a mirrored session: the one whose daemon wrote it last in central. NULL: another client did, or
-- it is not known yet; then the session's heartbeat alone counts.
ALTER TABLE sessions ADD COLUMN vouched_by BLOB;
-- The id by which sessions name it.
ALTER TABLE hosts ADD COLUMN host_id BLOB;
CREATE INDEX hosts_by_id ON hosts (host_id);

-- Which sessions are active is decided by these indexes, without reading the rows.
DROP INDEX sessions_resting;
DROP INDEX sessions_resting_project;
DROP INDEX sessions_resting_epic;
CREATE INDEX sessions_resting ON sessions (last_heartbeat, status, mirror_generation, vouched_by)
    WHERE (mirror_generation IS NOT NULL OR status = 'stale') AND status <> 'closed';
CREATE INDEX sessions_resting_project ON sessions (project, last_heartbeat, status, mirror_generation, vouched_by)
    WHERE (mirror_generation IS NOT NULL OR status = 'stale') AND status <> 'closed';
CREATE INDEX sessions_resting_epic ON sessions (current_epic, last_heartbeat, status, mirror_generation, vouched_by)
    WHERE (mirror_generation IS NOT NULL OR status = 'stale') AND status <> 'closed';

-- Everything is read again once, since what was read before does not say who vouches.
UPDATE metadata SET value = 0 WHERE name = 'mirror_since';

-- The heartbeat of a session of this host that central has; NULL: not known. A live session is refreshed in central when
-- this is too old. A heartbeat does not touch it.
ALTER TABLE sessions ADD COLUMN synced_heartbeat INTEGER;
CREATE INDEX sessions_to_refresh ON sessions (synced_heartbeat) WHERE mirror_generation IS NULL AND status = 'active';
