-- What sessiond adds. May be run any number of times, with psql -f or `sessiond migrate`, after the
-- two files before it.

-- Which agent session a session belongs to; newer installations have these already.
ALTER TABLE supervisor_sessions ADD COLUMN IF NOT EXISTS claude_session_uuid VARCHAR(64);
ALTER TABLE supervisor_sessions ADD COLUMN IF NOT EXISTS claude_session_path TEXT;
CREATE INDEX IF NOT EXISTS idx_supervisor_sessions_claude_uuid
    ON supervisor_sessions (claude_session_uuid) WHERE claude_session_uuid IS NOT NULL;

-- Gives the times a zone. A naive time means another moment to every client that sets its own zone,
-- and in the hour when summer time ends it means two. What is there was written in the server's own
-- zone, which is the session's under psql; `sessiond migrate` sets it first. Clients that write
-- CURRENT_TIMESTAMP or compute NOW() - last_heartbeat notice nothing.
--
-- A view on these columns forbids the change, so every view that depends on the table, however
-- indirectly, is taken down with all that belongs to it and put back as it was.
CREATE OR REPLACE FUNCTION sessiond_give_zone(of_table REGCLASS, VARIADIC columns TEXT[]) RETURNS VOID
LANGUAGE plpgsql AS $do$
DECLARE
    path CONSTANT TEXT := current_setting('search_path');
    view RECORD;
    takedown TEXT[] := '{}';
    restore TEXT[] := '{}';
    statement TEXT;
    change TEXT;
    no_default TEXT;
    new_default TEXT;
BEGIN
    -- Nobody writes between looking and changing.
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', of_table);

    -- A default is cast along with its column, by way of the naive time; so it is set anew.
    SELECT string_agg(format(
            'ALTER COLUMN %1$I TYPE TIMESTAMPTZ USING %1$I AT TIME ZONE current_setting(''TimeZone'')', attname), ', '),
        coalesce(string_agg(format('ALTER %I DROP DEFAULT', attname), ', ') FILTER (WHERE atthasdef), ''),
        coalesce(string_agg(format('ALTER %I SET DEFAULT CURRENT_TIMESTAMP', attname), ', ')
            FILTER (WHERE atthasdef), '')
    INTO change, no_default, new_default
    FROM pg_attribute
    WHERE attrelid = of_table AND attname = ANY (columns) AND atttypid = 'timestamp'::regtype;
    IF change IS NULL THEN
        RETURN;
    END IF;

    -- With an empty path, every name in a definition comes out qualified, and is understood as it was meant.
    PERFORM set_config('search_path', '', true);
    change := format('ALTER TABLE %s %s', of_table, change);

    FOR view IN
        WITH RECURSIVE dependent (oid, depth) AS (
            SELECT of_table::oid, 0
            UNION
            SELECT r.ev_class, dependent.depth + 1
            FROM dependent
            JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = dependent.oid
                AND d.classid = 'pg_rewrite'::regclass
            JOIN pg_rewrite r ON r.oid = d.objid AND r.ev_class <> dependent.oid
        )
        SELECT c.oid, c.oid::regclass::text AS name, c.relowner, c.relacl, c.reloptions, c.relispopulated,
            CASE c.relkind WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'VIEW' END AS kind
        FROM pg_class c
        JOIN (SELECT oid, max(depth) AS depth FROM dependent GROUP BY oid) d ON d.oid = c.oid
        WHERE c.relkind IN ('v', 'm')
        ORDER BY d.depth DESC
    LOOP
        takedown := takedown || format('DROP %s %s', view.kind, view.name);
        -- Those taken down last come back first.
        restore := ARRAY[
            format('CREATE %s %s%s AS %s%s', view.kind, view.name,
                COALESCE(' WITH (' || array_to_string(view.reloptions, ', ') || ')', ''),
                rtrim(pg_get_viewdef(view.oid), ';'),
                CASE WHEN view.relispopulated THEN '' ELSE ' WITH NO DATA' END)
        ] || ARRAY(
            SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = view.oid
        ) || ARRAY(
            SELECT pg_get_ruledef(oid) FROM pg_rewrite WHERE ev_class = view.oid AND rulename <> '_RETURN'
        ) || ARRAY(
            SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = view.oid AND NOT tgisinternal
        ) || ARRAY(
            SELECT format('ALTER VIEW %s ALTER COLUMN %I SET DEFAULT %s', view.name, a.attname,
                pg_get_expr(f.adbin, f.adrelid))
            FROM pg_attrdef f JOIN pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum
            WHERE f.adrelid = view.oid
        ) || ARRAY(
            SELECT CASE t.objsubid
                WHEN 0 THEN format('COMMENT ON %s %s IS %L', view.kind, view.name, t.description)
                ELSE format('COMMENT ON COLUMN %s.%I IS %L', view.name, a.attname, t.description) END
            FROM pg_description t
            LEFT JOIN pg_attribute a ON a.attrelid = t.objoid AND a.attnum = t.objsubid
            WHERE t.classoid = 'pg_class'::regclass AND t.objoid = view.oid
        ) || ARRAY(
            SELECT format('GRANT %s%s ON %s TO %s%s', g.privilege_type, g.of_column, view.name,
                CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END,
                CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
            FROM (
                SELECT (aclexplode(view.relacl)).*, '' AS of_column
                UNION ALL
                SELECT (aclexplode(attacl)).*, format(' (%I)', attname) FROM pg_attribute WHERE attrelid = view.oid
            ) g
            WHERE g.grantee <> view.relowner
        ) || ARRAY[
            format('ALTER %s %s OWNER TO %I', view.kind, view.name, pg_get_userbyid(view.relowner))
        ] || restore;
    END LOOP;

    FOREACH statement IN ARRAY takedown LOOP
        EXECUTE statement;
    END LOOP;
    IF no_default <> '' THEN
        EXECUTE format('ALTER TABLE %s %s', of_table, no_default);
    END IF;
    EXECUTE change;
    IF new_default <> '' THEN
        EXECUTE format('ALTER TABLE %s %s', of_table, new_default);
    END IF;
    FOREACH statement IN ARRAY restore LOOP
        EXECUTE statement;
    END LOOP;
    PERFORM set_config('search_path', path, true);
END
$do$;
SELECT sessiond_give_zone('supervisor_sessions', 'last_heartbeat', 'created_at', 'closed_at');

-- A replayed heartbeat keeps the time at which it was one. sessiond sets sessiond.replay in its own
-- transactions; everybody else's are stamped as ever.
CREATE OR REPLACE FUNCTION update_last_heartbeat() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('sessiond.replay', true) = 'on' THEN
        RETURN NEW;
    END IF;
    IF NEW.context_percent IS DISTINCT FROM OLD.context_percent
        OR NEW.current_epic IS DISTINCT FROM OLD.current_epic
    THEN
        NEW.last_heartbeat := CURRENT_TIMESTAMP;
    END IF;
    RETURN NEW;
END
$$;

-- The daemons turn the sessions of vanished hosts stale, which earlier clients never did: they know
-- of no way back. So a heartbeat of theirs is one.
CREATE OR REPLACE FUNCTION sessiond_revive() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('sessiond.replay', true) IS DISTINCT FROM 'on' THEN
        NEW.status := 'active';
    END IF;
    RETURN NEW;
END
$$;

DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_trigger
        WHERE tgrelid = 'supervisor_sessions'::regclass AND tgname = 'trg_supervisor_sessions_revive'
    ) THEN
        -- Triggers fire in the order of their names: this one after trg_supervisor_sessions_heartbeat,
        -- so that it sees the time which that one stamps.
        CREATE TRIGGER trg_supervisor_sessions_revive
            BEFORE UPDATE ON supervisor_sessions
            FOR EACH ROW
            WHEN (OLD.status = 'stale' AND NEW.status = 'stale' AND NEW.last_heartbeat > OLD.last_heartbeat)
            EXECUTE FUNCTION sessiond_revive();
    END IF;
END
$$;

CREATE TABLE IF NOT EXISTS sessiond_hosts (
    host_id      UUID        PRIMARY KEY,
    machine_name VARCHAR(64) NOT NULL CHECK (machine_name ~ '^[a-z0-9][a-z0-9_-]*$'),
    claim        UUID        NOT NULL,
    batch        BIGINT      NOT NULL DEFAULT 0,
    version      TEXT        NOT NULL,
    first_seen   TIMESTAMPTZ NOT NULL DEFAULT now(),
    last_seen    TIMESTAMPTZ NOT NULL DEFAULT now(),
    retired_at   TIMESTAMPTZ,
    replaced_by  UUID
);
CREATE UNIQUE INDEX IF NOT EXISTS sessiond_hosts_machine_name
    ON sessiond_hosts (machine_name) WHERE retired_at IS NULL;

COMMENT ON TABLE sessiond_hosts IS 'The hosts on which sessiond runs, and the ledger of what each has replayed';
COMMENT ON COLUMN sessiond_hosts.host_id IS 'Random, pinned in the host''s state folder';
COMMENT ON COLUMN sessiond_hosts.claim IS 'Random for each start; one unknown to the host is of a copy of its folder';
COMMENT ON COLUMN sessiond_hosts.batch IS 'The newest batch applied; advances in the same transaction as the batch';
COMMENT ON COLUMN sessiond_hosts.version IS 'The version of sessiond that spoke last';
COMMENT ON COLUMN sessiond_hosts.last_seen IS 'When the host spoke last, by this database''s clock';
COMMENT ON COLUMN sessiond_hosts.retired_at IS 'Since when the host may not write: it was renamed or replaced';
COMMENT ON COLUMN sessiond_hosts.replaced_by IS 'The host_id that came in its place';

CREATE TABLE IF NOT EXISTS sessiond_sweep (
    one_row  BOOLEAN     PRIMARY KEY DEFAULT true CHECK (one_row),
    swept_at TIMESTAMPTZ NOT NULL
);
INSERT INTO sessiond_sweep (swept_at) VALUES ('-infinity') ON CONFLICT (one_row) DO NOTHING;

COMMENT ON TABLE sessiond_sweep IS 'When some host last turned the sessions of vanished hosts stale; one row';

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
        EXECUTE format('GRANT SELECT, INSERT, UPDATE ON sessiond_hosts, sessiond_sweep TO %s', writer);
    END LOOP;
END
$$;
