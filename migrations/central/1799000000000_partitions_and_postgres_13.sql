-- May be run any number of times, with psql -f or `sessiond migrate`, after the files before it.

-- Lets the triggers find sessiond's tables when the table that fires them lies in another schema: a partition, or a table of
-- an earlier service that is reached by search_path. A trigger runs with the name and schema of the table, or of the
-- partition, whose rows change. Its function lies beside sessiond's tables, because the same files created both; so the
-- schema is that of the function.
CREATE OR REPLACE FUNCTION sessiond_bury() RETURNS TRIGGER LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog AS $$
DECLARE
    own_schema CONSTANT TEXT := (SELECT p.pronamespace::regnamespace FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
        WHERE t.tgrelid = TG_RELID AND t.tgname = TG_NAME);
BEGIN
    EXECUTE format('INSERT INTO %s.sessiond_tombstones (instance_id, created_at, changed_xid) '
        'VALUES ($1, $2, pg_current_xact_id()) ON CONFLICT DO NOTHING', own_schema)
        USING OLD.instance_id, OLD.created_at;
    PERFORM pg_notify('sessiond', coalesce(current_setting('sessiond.host', true), ''));
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION sessiond_bury_all() RETURNS TRIGGER LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog AS $$
DECLARE
    own_schema CONSTANT TEXT := (SELECT p.pronamespace::regnamespace FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
        WHERE t.tgrelid = TG_RELID AND t.tgname = TG_NAME);
BEGIN
    EXECUTE format('INSERT INTO %s.sessiond_tombstones (instance_id, created_at, changed_xid) '
        'SELECT instance_id, created_at, pg_current_xact_id() FROM %s ON CONFLICT DO NOTHING',
        own_schema, TG_RELID::regclass);
    PERFORM pg_notify('sessiond', coalesce(current_setting('sessiond.host', true), ''));
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION sessiond_note_history() RETURNS TRIGGER LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog AS $$
DECLARE
    own_schema CONSTANT TEXT := (SELECT p.pronamespace::regnamespace FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
        WHERE t.tgrelid = TG_RELID AND t.tgname = TG_NAME);
BEGIN
    -- A record of no session concerns no mirror.
    EXECUTE format('INSERT INTO %s.sessiond_history (instance_id, changed_xid) '
        'SELECT DISTINCT instance_id, pg_current_xact_id() FROM added WHERE instance_id IS NOT NULL '
        'ON CONFLICT DO NOTHING', own_schema);
    PERFORM pg_notify('sessiond', coalesce(current_setting('sessiond.host', true), ''));
    RETURN NULL;
END
$$;

-- Each trigger that marks or announces changes, if it alone is gone. The files before this one create those of a table
-- together.
DO $$
DECLARE
    wanted RECORD;
BEGIN
    FOR wanted IN SELECT * FROM (VALUES
        ('supervisor_sessions', 'trg_supervisor_sessions_sessiond_mark',
            'BEFORE UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION sessiond_mark()'),
        ('supervisor_sessions', 'trg_supervisor_sessions_sessiond_new',
            'AFTER INSERT ON %s FOR EACH ROW EXECUTE FUNCTION sessiond_notify()'),
        ('supervisor_sessions', 'trg_supervisor_sessions_sessiond_changed', 'AFTER UPDATE ON %s FOR EACH ROW '
            'WHEN ((OLD.status, OLD.context_percent, OLD.current_epic, OLD.host_machine, OLD.closed_at) '
            'IS DISTINCT FROM (NEW.status, NEW.context_percent, NEW.current_epic, NEW.host_machine, NEW.closed_at)) '
            'EXECUTE FUNCTION sessiond_notify()'),
        ('supervisor_sessions', 'trg_supervisor_sessions_sessiond_gone',
            'AFTER DELETE ON %s FOR EACH ROW EXECUTE FUNCTION sessiond_bury()'),
        ('session_work', 'trg_session_work_sessiond_mark',
            'BEFORE UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION sessiond_mark()'),
        ('session_work', 'trg_session_work_sessiond_new', 'AFTER INSERT ON %s FOR EACH ROW '
            'WHEN (NEW.activity IS NOT NULL) EXECUTE FUNCTION sessiond_notify()'),
        ('session_work', 'trg_session_work_sessiond_changed', 'AFTER UPDATE ON %s FOR EACH ROW '
            'WHEN ((OLD.activity, OLD.waiting_for, OLD.activity_detail, OLD.activity_since) '
            'IS DISTINCT FROM (NEW.activity, NEW.waiting_for, NEW.activity_detail, NEW.activity_since)) '
            'EXECUTE FUNCTION sessiond_notify()')) AS t (of_table, name, rest)
    LOOP
        IF NOT EXISTS (
            SELECT FROM pg_trigger WHERE tgrelid = to_regclass(wanted.of_table) AND tgname = wanted.name
        ) THEN
            EXECUTE format('CREATE TRIGGER %I ' || wanted.rest, wanted.name, to_regclass(wanted.of_table));
        END IF;
    END LOOP;
END
$$;

-- `sessions_with_machine` as 1790000000000_silent_sessions_and_views.sql defines it, on PostgreSQL 13, which prints the older
-- definition in other words. Only that definition is replaced, and with it go and come back owner, grants, grants on
-- columns, comments, options and defaults; a view that others depend on is left.
DO $do$
DECLARE
    view CONSTANT REGCLASS := to_regclass('sessions_with_machine');
    path CONSTANT TEXT := current_setting('search_path');
    name TEXT;
    restore TEXT[];
    statement TEXT;
BEGIN
    IF view IS NULL OR pg_get_viewdef(view) NOT LIKE '%floor(date_part(''epoch''%' OR NOT EXISTS (
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
