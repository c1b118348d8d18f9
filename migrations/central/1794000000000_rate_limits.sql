-- The rate limits of agents' accounts, as the daemons' hosts share them. May be run any number of times, with psql -f or
-- `sessiond migrate`, after the files before it.

CREATE TABLE IF NOT EXISTS sessiond_limits (
    host_id    UUID        PRIMARY KEY REFERENCES sessiond_hosts (host_id) ON UPDATE CASCADE ON DELETE CASCADE,
    -- An array with an object for each window: uid, account, window, used_percent, resets_at, observed_at.
    limits     JSONB       NOT NULL,
    changed_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE sessiond_limits IS 'How much of the accounts of its agents each host knows to be used: the newest values, never sums';

DO $$
DECLARE
    writer TEXT;
BEGIN
    -- Every role that may run a daemon, no matter who runs this. No other role: the rows name accounts.
    FOR writer IN
        SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class WHERE oid = 'sessiond_hosts'::regclass
        UNION
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'sessiond_hosts'::regclass AND a.privilege_type = 'UPDATE'
    LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE ON sessiond_limits TO %s', writer);
    END LOOP;
    -- Where rights/row_security.sql was run, it holds for this table too.
    IF to_regprocedure('sessiond_may_write(text, name)') IS NOT NULL THEN
        ALTER TABLE sessiond_limits ENABLE ROW LEVEL SECURITY;
        DROP POLICY IF EXISTS sessiond_read ON sessiond_limits;
        DROP POLICY IF EXISTS sessiond_write ON sessiond_limits;
        CREATE POLICY sessiond_read ON sessiond_limits FOR SELECT USING (true);
        CREATE POLICY sessiond_write ON sessiond_limits USING (EXISTS (
            SELECT FROM sessiond_hosts h
            WHERE h.host_id = sessiond_limits.host_id AND sessiond_may_write(h.machine_name, current_user)));
    END IF;
END
$$;
