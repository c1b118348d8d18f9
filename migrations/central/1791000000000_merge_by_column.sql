-- Lets sessions be merged by column. May be run any number of times, with psql -f or `sessiond migrate`, after the files
-- before it. Only the catalog changes: no row is rewritten.

-- When each column was changed last, in microseconds since 1970 by its name; `other` is the time that counts for each
-- column that is not named. NULL: not known; the last heartbeat counts.
ALTER TABLE supervisor_sessions ADD COLUMN IF NOT EXISTS column_times JSONB;
-- The newest transaction that changed the row for another host or client than changed_by: the owner, whose own changes it
-- does not read, would otherwise miss what was changed just before its push.
ALTER TABLE supervisor_sessions ADD COLUMN IF NOT EXISTS others_xid xid8;
ALTER TABLE supervisor_sessions ALTER COLUMN column_times
    SET DEFAULT jsonb_build_object('other', (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);

COMMENT ON COLUMN supervisor_sessions.column_times IS 'When columns were changed last, in microseconds since 1970';
COMMENT ON COLUMN supervisor_sessions.others_xid IS 'The newest change by another than changed_by';

-- Daemons that merge by column set sessiond.columns in their transactions and write column_times themselves. Everybody
-- else's changes are stamped here: with the present, or with its heartbeat where an older daemon replays one.
CREATE OR REPLACE FUNCTION sessiond_mark_columns() RETURNS TRIGGER LANGUAGE plpgsql AS $$
DECLARE
    at     BIGINT;
    stamps JSONB;
BEGIN
    IF NEW.changed_by IS DISTINCT FROM OLD.changed_by THEN
        NEW.others_xid := OLD.changed_xid;
    END IF;
    IF current_setting('sessiond.columns', true) = 'on' THEN
        RETURN NEW;
    END IF;
    at := extract(epoch FROM CASE current_setting('sessiond.replay', true)
        WHEN 'on' THEN NEW.last_heartbeat ELSE clock_timestamp() END) * 1000000;
    SELECT jsonb_object_agg(n.key, at) INTO stamps
    FROM jsonb_each(to_jsonb(NEW)) n JOIN jsonb_each(to_jsonb(OLD)) o USING (key)
    WHERE n.value IS DISTINCT FROM o.value
        AND n.key NOT IN ('last_heartbeat', 'changed_xid', 'changed_by', 'others_xid', 'column_times');
    IF stamps IS NOT NULL THEN
        NEW.column_times := coalesce(OLD.column_times,
            jsonb_build_object('other', (extract(epoch FROM OLD.last_heartbeat) * 1000000)::bigint)) || stamps;
    END IF;
    RETURN NEW;
END
$$;

DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_trigger
        WHERE tgrelid = 'supervisor_sessions'::regclass AND tgname = 'trg_supervisor_sessions_sessiond_mark_columns'
    ) THEN
        -- Triggers fire in the order of their names: this one after the one that sets changed_by.
        CREATE TRIGGER trg_supervisor_sessions_sessiond_mark_columns
            BEFORE UPDATE ON supervisor_sessions
            FOR EACH ROW EXECUTE FUNCTION sessiond_mark_columns();
    END IF;
END
$$;
