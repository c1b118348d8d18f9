-- May be run any number of times, with psql -f or `sessiond migrate`, after the files before it.

-- Each host states after how long a silence its sessions are stale: no other host may use a shorter one.
ALTER TABLE sessiond_hosts ADD COLUMN IF NOT EXISTS stale_after INTERVAL CHECK (stale_after > '0');
COMMENT ON COLUMN sessiond_hosts.stale_after IS
    'How long a session of this host may be silent before others turn it stale; NULL: the host has not stated it';

-- A row trigger of a partitioned table runs with the name and schema of the partition, which may lie in another
-- schema than the table; sessiond's own tables lie beside the table.
CREATE OR REPLACE FUNCTION sessiond_bury() RETURNS TRIGGER LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog AS $$
DECLARE
    root CONSTANT OID := coalesce(pg_partition_root(TG_RELID), TG_RELID);
BEGIN
    EXECUTE format('INSERT INTO %s.sessiond_tombstones (instance_id, created_at, changed_xid) '
        'VALUES ($1, $2, pg_current_xact_id()) ON CONFLICT DO NOTHING',
        (SELECT relnamespace::regnamespace FROM pg_class WHERE oid = root))
        USING OLD.instance_id, OLD.created_at;
    PERFORM pg_notify('sessiond', coalesce(current_setting('sessiond.host', true), ''));
    RETURN NULL;
END
$$;

-- TRUNCATE fires no row triggers. It deletes all sessions of the table or partition, so each gets its tombstone.
CREATE OR REPLACE FUNCTION sessiond_bury_all() RETURNS TRIGGER LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog AS $$
DECLARE
    root CONSTANT OID := coalesce(pg_partition_root(TG_RELID), TG_RELID);
BEGIN
    EXECUTE format('INSERT INTO %s.sessiond_tombstones (instance_id, created_at, changed_xid) '
        'SELECT instance_id, created_at, pg_current_xact_id() FROM %s ON CONFLICT DO NOTHING',
        (SELECT relnamespace::regnamespace FROM pg_class WHERE oid = root), TG_RELID::regclass);
    PERFORM pg_notify('sessiond', coalesce(current_setting('sessiond.host', true), ''));
    RETURN NULL;
END
$$;

DO $$
DECLARE
    part REGCLASS;
BEGIN
    -- A partition that is truncated alone fires its own triggers only.
    FOR part IN
        SELECT 'supervisor_sessions'::regclass
        UNION
        SELECT relid FROM pg_partition_tree('supervisor_sessions')
    LOOP
        IF NOT EXISTS (
            SELECT FROM pg_trigger WHERE tgrelid = part AND tgname = 'trg_supervisor_sessions_sessiond_truncated'
        ) THEN
            EXECUTE format('CREATE TRIGGER trg_supervisor_sessions_sessiond_truncated BEFORE TRUNCATE ON %s '
                'FOR EACH STATEMENT EXECUTE FUNCTION sessiond_bury_all()', part);
        END IF;
    END LOOP;
END
$$;

-- `sessions_with_machine` as the earlier services define it: host_machine in the fifth place, the age rounded.
-- 1769950000000_add_host_machine.sql made it otherwise. Only that definition is replaced, and with it go and come
-- back owner, grants, grants on columns, comments, options and defaults; a view that others depend on is left.
DO $do$
DECLARE
    view CONSTANT REGCLASS := to_regclass('sessions_with_machine');
    path CONSTANT TEXT := current_setting('search_path');
    name TEXT;
    restore TEXT[];
    statement TEXT;
BEGIN
    IF view IS NULL OR pg_get_viewdef(view) NOT LIKE '%floor(EXTRACT(epoch FROM%' OR NOT EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = view AND attname = 'host_machine' AND attnum = 10
    ) THEN
        RETURN;
    END IF;
    IF EXISTS (
        SELECT FROM pg_depend d
        WHERE d.refobjid IN (view, (SELECT reltype FROM pg_class WHERE oid = view))
            AND d.deptype = 'n'
            AND NOT (d.classid = 'pg_rewrite'::regclass AND d.objid IN (SELECT oid FROM pg_rewrite WHERE ev_class = view))
    ) THEN
        RAISE WARNING 'view sessions_with_machine keeps host_machine in its last place, since others depend on it';
        RETURN;
    END IF;
    -- With an empty path, every name comes out qualified.
    PERFORM set_config('search_path', '', true);
    name := view::text;
    SELECT ARRAY(
        SELECT format('ALTER VIEW %s SET (%s)', name, array_to_string(c.reloptions, ', '))
        FROM pg_class c WHERE c.oid = view AND c.reloptions IS NOT NULL
    ) || ARRAY(
        SELECT CASE d.objsubid
            WHEN 0 THEN format('COMMENT ON VIEW %s IS %L', name, d.description)
            ELSE format('COMMENT ON COLUMN %s.%I IS %L', name, a.attname, d.description) END
        FROM pg_description d LEFT JOIN pg_attribute a ON a.attrelid = d.objoid AND a.attnum = d.objsubid
        WHERE d.classoid = 'pg_class'::regclass AND d.objoid = view
    ) || ARRAY(
        SELECT format('GRANT %s%s ON %s TO %s%s', g.privilege_type, g.of_column, name,
            CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END,
            CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
        FROM (
            SELECT (aclexplode(relacl)).*, '' AS of_column FROM pg_class WHERE oid = view
            UNION ALL
            SELECT (aclexplode(attacl)).*, format(' (%I)', attname) FROM pg_attribute WHERE attrelid = view
        ) g, pg_class c
        WHERE c.oid = view AND g.grantee <> c.relowner
    ) || ARRAY(
        SELECT pg_get_ruledef(oid) FROM pg_rewrite WHERE ev_class = view AND rulename <> '_RETURN'
    ) || ARRAY(
        SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = view AND NOT tgisinternal
    ) || ARRAY(
        SELECT format('ALTER VIEW %s ALTER COLUMN %I SET DEFAULT %s', name, a.attname,
            pg_get_expr(f.adbin, f.adrelid))
        FROM pg_attrdef f JOIN pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum
        WHERE f.adrelid = view
    ) || ARRAY(
        SELECT format('ALTER VIEW %s OWNER TO %I', name, pg_get_userbyid(relowner)) FROM pg_class WHERE oid = view
    ) INTO restore;
    PERFORM set_config('search_path', path, true);
    EXECUTE format('DROP VIEW %s', name);
    EXECUTE format('CREATE VIEW %s AS '
        'SELECT instance_id, project, instance_type, status, host_machine, context_percent, current_epic, '
            'last_heartbeat, created_at, closed_at, '
            'EXTRACT(EPOCH FROM (CURRENT_TIMESTAMP - last_heartbeat))::INTEGER AS age_seconds '
        'FROM supervisor_sessions ORDER BY host_machine, last_heartbeat DESC', name);
    FOREACH statement IN ARRAY restore LOOP
        EXECUTE statement;
    END LOOP;
END
$do$;

-- Where row_security.sql was run before: its guard let a row be moved to another machine, if only it was stale.
DO $do$
BEGIN
    IF to_regprocedure('sessiond_guard()') IS NOT NULL AND to_regprocedure('sessiond_may_write(text, name)') IS NOT NULL THEN
        EXECUTE $guard$
            CREATE OR REPLACE FUNCTION sessiond_guard() RETURNS TRIGGER LANGUAGE plpgsql AS $$
            DECLARE
                free CONSTANT TEXT[] := '{status, changed_xid, changed_by}';
            BEGIN
                IF sessiond_may_write(OLD.host_machine, current_user)
                    AND sessiond_may_write(NEW.host_machine, current_user)
                THEN
                    RETURN NEW;
                END IF;
                IF OLD.status <> 'active' OR NEW.status <> 'stale'
                    OR to_jsonb(NEW) - free IS DISTINCT FROM to_jsonb(OLD) - free
                THEN
                    RAISE insufficient_privilege USING MESSAGE = format(
                        'role %s may not write sessions of machine %s', current_user,
                        CASE WHEN sessiond_may_write(OLD.host_machine, current_user) THEN NEW.host_machine
                            ELSE OLD.host_machine END);
                END IF;
                RETURN NEW;
            END
            $$
        $guard$;
    END IF;
END
$do$;
