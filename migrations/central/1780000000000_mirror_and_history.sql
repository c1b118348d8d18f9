-- Lets every host keep a mirror of all sessions, and of what happened in them. May be run any number of
-- times, with psql -f or `sessiond migrate`, after the files before it.

-- Where a session ran, and which one it goes on from.
ALTER TABLE supervisor_sessions ADD COLUMN IF NOT EXISTS resumed_from VARCHAR(32);
ALTER TABLE supervisor_sessions ADD COLUMN IF NOT EXISTS working_dir TEXT;

-- Which transaction changed a row last, and for which host. Who has read everything before the oldest
-- transaction that was still running then finds all that came since by asking for this one and later ones.
-- A time or a sequence would not do: those of a transaction that commits late lie before what was already read.
ALTER TABLE supervisor_sessions ADD COLUMN IF NOT EXISTS changed_xid xid8 NOT NULL DEFAULT '0';
ALTER TABLE supervisor_sessions ADD COLUMN IF NOT EXISTS changed_by UUID;
ALTER TABLE supervisor_sessions
    ALTER COLUMN changed_xid SET DEFAULT pg_current_xact_id(),
    ALTER COLUMN changed_by SET DEFAULT nullif(current_setting('sessiond.host', true), '')::uuid;
CREATE INDEX IF NOT EXISTS idx_supervisor_sessions_changed ON supervisor_sessions (changed_xid, instance_id);

CREATE OR REPLACE FUNCTION sessiond_mark() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed_xid := pg_current_xact_id();
    NEW.changed_by := nullif(current_setting('sessiond.host', true), '')::uuid;
    RETURN NEW;
END
$$;

-- Hosts are told at once of all but heartbeats, which they come to read anyway. However many rows a
-- transaction changes, it sends one notification: of those that are alike all but the first are dropped.
CREATE OR REPLACE FUNCTION sessiond_notify() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('sessiond', coalesce(current_setting('sessiond.host', true), ''));
    RETURN NULL;
END
$$;

CREATE TABLE IF NOT EXISTS sessiond_tombstones (
    instance_id VARCHAR(32) NOT NULL,
    created_at  TIMESTAMPTZ NOT NULL,
    changed_xid xid8        NOT NULL,
    deleted_at  TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (changed_xid, instance_id)
);
COMMENT ON TABLE sessiond_tombstones IS 'Sessions deleted in the last 30 days, for the mirrors to follow';

CREATE TABLE IF NOT EXISTS sessiond_history (
    instance_id VARCHAR(64) NOT NULL,
    changed_xid xid8        NOT NULL,
    changed_by  UUID        DEFAULT nullif(current_setting('sessiond.host', true), '')::uuid,
    added_at    TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (changed_xid, instance_id)
);
-- They come in the order of time, so that the old ones are found by next to no index.
CREATE INDEX IF NOT EXISTS sessiond_history_added_at ON sessiond_history USING brin (added_at);
COMMENT ON TABLE sessiond_history IS
    'Which sessions got events, commands or checkpoints in the last 30 days, for the mirrors to follow';

-- Whoever may delete sessions or add events need not know of these tables.
CREATE OR REPLACE FUNCTION sessiond_bury() RETURNS TRIGGER LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog AS $$
BEGIN
    EXECUTE format('INSERT INTO %I.sessiond_tombstones (instance_id, created_at, changed_xid) '
        'VALUES ($1, $2, pg_current_xact_id()) ON CONFLICT DO NOTHING', TG_TABLE_SCHEMA)
        USING OLD.instance_id, OLD.created_at;
    PERFORM pg_notify('sessiond', coalesce(current_setting('sessiond.host', true), ''));
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION sessiond_note_history() RETURNS TRIGGER LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog AS $$
BEGIN
    EXECUTE format('INSERT INTO %I.sessiond_history (instance_id, changed_xid) '
        'SELECT DISTINCT instance_id, pg_current_xact_id() FROM added ON CONFLICT DO NOTHING', TG_TABLE_SCHEMA);
    PERFORM pg_notify('sessiond', coalesce(current_setting('sessiond.host', true), ''));
    RETURN NULL;
END
$$;

DO $$
DECLARE
    history TEXT;
BEGIN
    -- Triggers fire in the order of their names: this one after those that stamp and revive.
    IF NOT EXISTS (
        SELECT FROM pg_trigger
        WHERE tgrelid = 'supervisor_sessions'::regclass AND tgname = 'trg_supervisor_sessions_sessiond_mark'
    ) THEN
        CREATE TRIGGER trg_supervisor_sessions_sessiond_mark
            BEFORE UPDATE ON supervisor_sessions
            FOR EACH ROW EXECUTE FUNCTION sessiond_mark();
        CREATE TRIGGER trg_supervisor_sessions_sessiond_new
            AFTER INSERT ON supervisor_sessions
            FOR EACH ROW EXECUTE FUNCTION sessiond_notify();
        CREATE TRIGGER trg_supervisor_sessions_sessiond_changed
            AFTER UPDATE ON supervisor_sessions
            FOR EACH ROW
            WHEN ((OLD.status, OLD.context_percent, OLD.current_epic, OLD.host_machine, OLD.closed_at)
                IS DISTINCT FROM (NEW.status, NEW.context_percent, NEW.current_epic, NEW.host_machine, NEW.closed_at))
            EXECUTE FUNCTION sessiond_notify();
        CREATE TRIGGER trg_supervisor_sessions_sessiond_gone
            AFTER DELETE ON supervisor_sessions
            FOR EACH ROW EXECUTE FUNCTION sessiond_bury();
    END IF;
    FOREACH history IN ARRAY ARRAY['event_store', 'command_log', 'checkpoints'] LOOP
        IF to_regclass(history) IS NOT NULL AND NOT EXISTS (
            SELECT FROM pg_trigger WHERE tgrelid = to_regclass(history) AND tgname = 'trg_sessiond_note_history'
        ) THEN
            EXECUTE format('CREATE TRIGGER trg_sessiond_note_history AFTER INSERT ON %s '
                'REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION sessiond_note_history()',
                to_regclass(history));
        END IF;
    END LOOP;
    IF to_regclass('command_log') IS NOT NULL THEN
        -- The times of the other two have a zone from the start.
        PERFORM sessiond_give_zone(to_regclass('command_log'), 'created_at');
        -- A command has no key of its own: by this one the hosts know those that they replayed.
        CREATE INDEX IF NOT EXISTS idx_sessiond_command_record
            ON command_log ((context_data->>'record_id')) WHERE context_data ? 'record_id';
        -- The latest of a session are looked up; event_store has an index for that.
        CREATE INDEX IF NOT EXISTS idx_sessiond_command_log ON command_log (instance_id, id);
    END IF;
    IF to_regclass('checkpoints') IS NOT NULL THEN
        CREATE INDEX IF NOT EXISTS idx_sessiond_checkpoints ON checkpoints (instance_id, sequence_num);
    END IF;
END
$$;

-- Whoever may write sessions may run a daemon, no matter who runs this.
DO $$
DECLARE
    writer TEXT;
BEGIN
    FOR writer IN
        SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class WHERE oid = 'supervisor_sessions'::regclass
        UNION
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'supervisor_sessions'::regclass AND a.privilege_type = 'UPDATE'
    LOOP
        EXECUTE format('GRANT SELECT, INSERT, DELETE ON sessiond_tombstones, sessiond_history TO %s', writer);
    END LOOP;
END
$$;
