-- When sessions changed what they do: bounded to 7 days, each host deletes what is older. May be run any number of times,
-- with psql -f or `sessiond migrate`, after the files before it.

CREATE TABLE IF NOT EXISTS sessiond_activity (
    instance_id     VARCHAR(32) NOT NULL REFERENCES supervisor_sessions (instance_id)
        ON UPDATE CASCADE ON DELETE CASCADE,
    at              TIMESTAMPTZ NOT NULL,
    activity        TEXT,
    waiting_for     TEXT,
    detail          TEXT,
    context_percent SMALLINT    NOT NULL,
    changed_xid     xid8        NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (instance_id, at)
);
CREATE INDEX IF NOT EXISTS sessiond_activity_at ON sessiond_activity (at);

COMMENT ON TABLE sessiond_activity IS 'What sessions did from a time on; a null activity: nothing vouched for one any more';

DO $$
DECLARE
    writer TEXT;
BEGIN
    -- Every role that may write the work of sessions may run a daemon, no matter who runs this.
    FOR writer IN
        SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class WHERE oid = 'session_work'::regclass
        UNION
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'session_work'::regclass AND a.privilege_type = 'UPDATE'
    LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON sessiond_activity TO %s', writer);
    END LOOP;
    -- Roles that read the work of sessions read its history.
    FOR writer IN
        SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'session_work'::regclass AND a.privilege_type = 'SELECT'
    LOOP
        EXECUTE format('GRANT SELECT ON sessiond_activity TO %s', writer);
    END LOOP;
    -- Where rights/row_security.sql was run, it holds for this table too.
    IF to_regprocedure('sessiond_may_record(text, name)') IS NOT NULL THEN
        ALTER TABLE sessiond_activity ENABLE ROW LEVEL SECURITY;
        DROP POLICY IF EXISTS sessiond_read ON sessiond_activity;
        DROP POLICY IF EXISTS sessiond_write ON sessiond_activity;
        CREATE POLICY sessiond_read ON sessiond_activity FOR SELECT USING (true);
        CREATE POLICY sessiond_write ON sessiond_activity USING (sessiond_may_record(instance_id, current_user));
    END IF;
END
$$;
