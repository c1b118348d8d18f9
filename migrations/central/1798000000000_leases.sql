-- Leases: which host does something that only one of them may do, such as sending a notification. May be run any number of
-- times, with psql -f or `sessiond migrate`, after the files before it.

CREATE TABLE IF NOT EXISTS sessiond_leases (
    name       TEXT        PRIMARY KEY,
    host_id    UUID        NOT NULL REFERENCES sessiond_hosts (host_id) ON UPDATE CASCADE ON DELETE CASCADE,
    expires_at TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE sessiond_leases IS 'Which host may do something until when; after that any other host may take it';
CREATE INDEX IF NOT EXISTS sessiond_leases_expires_at ON sessiond_leases (expires_at);

DO $$
DECLARE
    writer TEXT;
BEGIN
    -- Every role that may run a daemon, no matter who runs this.
    FOR writer IN
        SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class WHERE oid = 'sessiond_hosts'::regclass
        UNION
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'sessiond_hosts'::regclass AND a.privilege_type = 'UPDATE'
    LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON sessiond_leases TO %s', writer);
    END LOOP;
    -- Where rights/row_security.sql was run, a host takes leases for itself only, and those of others once they expired.
    IF to_regprocedure('sessiond_may_write(text, name)') IS NOT NULL THEN
        ALTER TABLE sessiond_leases ENABLE ROW LEVEL SECURITY;
        DROP POLICY IF EXISTS sessiond_read ON sessiond_leases;
        DROP POLICY IF EXISTS sessiond_write ON sessiond_leases;
        CREATE POLICY sessiond_read ON sessiond_leases FOR SELECT USING (true);
        CREATE POLICY sessiond_write ON sessiond_leases
            USING (expires_at <= now() OR EXISTS (SELECT FROM sessiond_hosts h
                WHERE h.host_id = sessiond_leases.host_id AND sessiond_may_write(h.machine_name, current_user)))
            WITH CHECK (EXISTS (SELECT FROM sessiond_hosts h
                WHERE h.host_id = sessiond_leases.host_id AND sessiond_may_write(h.machine_name, current_user)));
    END IF;
END
$$;
