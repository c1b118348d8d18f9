-- Lets the last contact of a host count for all its sessions, so that other hosts do not read a row again for a heartbeat
-- alone. May be run any number of times, with psql -f or `sessiond migrate`, after the files before it. Only the catalog
-- changes: no row is rewritten.

-- The claim under which the host stated that it judges sessions of other hosts by the last contact of those hosts. While
-- every host does, heartbeats are not marked as changes. A daemon of an earlier version draws a claim of its own, and
-- leaves this one as it is.
ALTER TABLE sessiond_hosts ADD COLUMN IF NOT EXISTS vouching_claim UUID;
COMMENT ON COLUMN sessiond_hosts.vouching_claim IS
    'Equal to claim while the host judges sessions of other hosts by last_seen of those hosts';

-- The mark stays as it is where a daemon changes nothing but the heartbeat of a row that it wrote last itself, and has set
-- sessiond.vouched in its transaction. Times of columns say nothing to other hosts. Rows that other clients write are
-- always marked: no host vouches for them. The rows are compared as bytes, because a column that somebody added may have
-- a type without an equality.
CREATE OR REPLACE FUNCTION sessiond_mark() RETURNS TRIGGER LANGUAGE plpgsql AS $$
DECLARE
    host CONSTANT UUID := nullif(current_setting('sessiond.host', true), '')::uuid;
    beaten RECORD;
BEGIN
    -- The function marks the work of sessions, too.
    IF TG_NAME = 'trg_supervisor_sessions_sessiond_mark' AND current_setting('sessiond.replay', true) = 'on'
        AND current_setting('sessiond.vouched', true) = 'on' AND OLD.changed_by = host
    THEN
        beaten := NEW;
        beaten.last_heartbeat := OLD.last_heartbeat;
        beaten.column_times := OLD.column_times;
        IF beaten OPERATOR(pg_catalog.*=) OLD THEN
            RETURN NEW;
        END IF;
    END IF;
    NEW.changed_xid := pg_current_xact_id();
    NEW.changed_by := host;
    RETURN NEW;
END
$$;
