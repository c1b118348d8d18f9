-- What sessions do and work on: the newest state, beside supervisor_sessions, so that earlier clients see no difference.
-- May be run any number of times, with psql -f or `sessiond migrate`, after the files before it.

CREATE TABLE IF NOT EXISTS session_work (
    instance_id     VARCHAR(32) PRIMARY KEY REFERENCES supervisor_sessions (instance_id)
        ON UPDATE CASCADE ON DELETE CASCADE,
    -- They count only while the session is active and they have not ended; else they are the last that was known.
    activity        TEXT,
    waiting_for     TEXT,
    activity_detail TEXT,
    activity_since  TIMESTAMPTZ,
    activity_source TEXT,
    -- What did it is gone: a session that is resumed does not do it any more.
    activity_ended  BOOLEAN     NOT NULL DEFAULT false,
    kind            TEXT,
    title           TEXT,
    repository      TEXT,
    branch          TEXT,
    worktree        TEXT,
    model           TEXT,
    cost_usd        DOUBLE PRECISION,
    -- All that is known of the work, at most 16 KiB.
    snapshot        JSONB       NOT NULL DEFAULT '{}',
    -- When it changed last on its machine; an older one never replaces a newer one.
    recorded_at     TIMESTAMPTZ NOT NULL,
    changed_xid     xid8        NOT NULL DEFAULT pg_current_xact_id(),
    changed_by      UUID        DEFAULT nullif(current_setting('sessiond.host', true), '')::uuid
);
CREATE INDEX IF NOT EXISTS session_work_changed ON session_work (changed_xid, instance_id);

COMMENT ON TABLE session_work IS 'What sessions do (activity) and work on (snapshot): the newest state of each';
COMMENT ON COLUMN session_work.activity IS 'working, waiting, idle or failed; counts only while the session is active and it has not ended';
COMMENT ON COLUMN session_work.waiting_for IS 'permission, question, plan or input; only while waiting';

DO $$
DECLARE
    writer TEXT;
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_trigger
        WHERE tgrelid = 'session_work'::regclass AND tgname = 'trg_session_work_sessiond_mark'
    ) THEN
        CREATE TRIGGER trg_session_work_sessiond_mark BEFORE UPDATE ON session_work
            FOR EACH ROW EXECUTE FUNCTION sessiond_mark();
        -- Other hosts read a changed activity at once, and a changed snapshot with the next change.
        CREATE TRIGGER trg_session_work_sessiond_new AFTER INSERT ON session_work
            FOR EACH ROW WHEN (NEW.activity IS NOT NULL) EXECUTE FUNCTION sessiond_notify();
        CREATE TRIGGER trg_session_work_sessiond_changed AFTER UPDATE ON session_work
            FOR EACH ROW
            WHEN ((OLD.activity, OLD.waiting_for, OLD.activity_detail, OLD.activity_since)
                IS DISTINCT FROM (NEW.activity, NEW.waiting_for, NEW.activity_detail, NEW.activity_since))
            EXECUTE FUNCTION sessiond_notify();
    END IF;
    -- Every role that may write sessions may run a daemon, no matter who runs this.
    FOR writer IN
        SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class WHERE oid = 'supervisor_sessions'::regclass
        UNION
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'supervisor_sessions'::regclass AND a.privilege_type = 'UPDATE'
    LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE ON session_work TO %s', writer);
    END LOOP;
    -- Roles that read sessions read their work.
    FOR writer IN
        SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'supervisor_sessions'::regclass AND a.privilege_type = 'SELECT'
    LOOP
        EXECUTE format('GRANT SELECT ON session_work TO %s', writer);
    END LOOP;
    -- Where rights/row_security.sql was run, it holds for this table too.
    IF to_regprocedure('sessiond_may_record(text, name)') IS NOT NULL THEN
        ALTER TABLE session_work ENABLE ROW LEVEL SECURITY;
        DROP POLICY IF EXISTS sessiond_read ON session_work;
        DROP POLICY IF EXISTS sessiond_write ON session_work;
        CREATE POLICY sessiond_read ON session_work FOR SELECT USING (true);
        CREATE POLICY sessiond_write ON session_work USING (sessiond_may_record(instance_id, current_user));
    END IF;
END
$$;
