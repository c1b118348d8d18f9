-- Row level security, for those who want it: a machine's role can write only that machine's rows, and can make no
-- row another machine's. Everybody reads everything, and roles that are not listed here, such as those of other
-- clients, write as ever. Listed counts by the role that logged in, too: SET ROLE does not shake it off. To be run by the
-- tables' owner after daemon.sql, once for each machine, any number of times:
--
--   psql -v role=sessiond_laptop -v machine=laptop -f row_security.sql postgres://OWNER@HOST/supervisor_service
--
-- A machine that is renamed needs its new name listed as well, before it is renamed. On machines with such a role,
-- set machine.allow_other = false: a session filed under another machine would be parked.

\if :{?role}
\else
\echo 'name the role: -v role=sessiond_laptop'
\quit
\endif
\if :{?machine}
\else
\echo 'name its machine: -v machine=laptop'
\quit
\endif

BEGIN;

CREATE TABLE IF NOT EXISTS sessiond_machine_roles (
    role_name    NAME        NOT NULL,
    machine_name VARCHAR(64) NOT NULL CHECK (machine_name ~ '^[a-z0-9][a-z0-9_-]*$'),
    PRIMARY KEY (role_name, machine_name)
);
COMMENT ON TABLE sessiond_machine_roles IS 'Which machines'' rows a role may write; a role that is not listed is not bound';
REVOKE ALL ON sessiond_machine_roles FROM PUBLIC;

INSERT INTO sessiond_machine_roles VALUES (:'role', :'machine') ON CONFLICT DO NOTHING;

-- Both read the list with its owner's rights, for the role that asks and the one that logged in.
CREATE OR REPLACE FUNCTION sessiond_may_write(machine TEXT, asking NAME) RETURNS BOOLEAN
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT count(*) = 0 OR coalesce(bool_or(machine_name = machine), false)
    FROM sessiond_machine_roles WHERE role_name IN (asking, session_user)
$$;

CREATE OR REPLACE FUNCTION sessiond_may_record(instance TEXT, asking NAME) RETURNS BOOLEAN
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT NOT EXISTS (SELECT FROM sessiond_machine_roles WHERE role_name IN (asking, session_user))
        OR EXISTS (
            SELECT FROM supervisor_sessions s JOIN sessiond_machine_roles r ON r.machine_name = s.host_machine
            WHERE s.instance_id = instance AND r.role_name IN (asking, session_user))
$$;

-- Whether column times differ in that of the status only, which may not lie in the future: it would keep
-- the owner's own changes out. A row without any gets that of its heartbeat, as sessiond_mark_columns() does it.
CREATE OR REPLACE FUNCTION sessiond_is_status_time(was JSONB, will JSONB, heartbeat BIGINT) RETURNS BOOLEAN
    LANGUAGE sql VOLATILE AS $$
    SELECT was = will OR coalesce(
        jsonb_typeof(will) = 'object' AND jsonb_typeof(will->'status') = 'number'
        AND (will->>'status')::numeric <= (extract(epoch FROM clock_timestamp()) * 1000000)::numeric
        AND will = jsonb_build_object('status', will->'status')
            || CASE jsonb_typeof(was) WHEN 'object' THEN was - 'status'
                WHEN 'null' THEN jsonb_build_object('other', heartbeat) END,
        false)
$$;

-- Both the row before the change and the row after it must belong to the role's machines, whatever their status. The one
-- exception: any host may turn the sessions of vanished hosts stale. Columns that older centrals lack are read by way
-- of JSON. A central where this was run before gets the same two functions by 1792000000000_guard_of_column_times.sql.
CREATE OR REPLACE FUNCTION sessiond_guard() RETURNS TRIGGER LANGUAGE plpgsql AS $$
DECLARE
    -- What turning stale may change. Triggers set all of it but the status.
    free CONSTANT TEXT[] := '{status, changed_xid, changed_by, others_xid, column_times}';
    was  CONSTANT JSONB := to_jsonb(OLD);
    will CONSTANT JSONB := to_jsonb(NEW);
BEGIN
    IF sessiond_may_write(OLD.host_machine, current_user)
        AND sessiond_may_write(NEW.host_machine, current_user)
    THEN
        RETURN NEW;
    END IF;
    IF OLD.status = 'active' AND NEW.status = 'stale'
        AND will - free = was - free
        AND coalesce(will->'others_xid', 'null')
            IN (coalesce(was->'others_xid', 'null'), was->'changed_xid')
        AND sessiond_is_status_time(coalesce(was->'column_times', 'null'),
            coalesce(will->'column_times', 'null'), (extract(epoch FROM OLD.last_heartbeat) * 1000000)::bigint)
    THEN
        RETURN NEW;
    END IF;
    RAISE insufficient_privilege USING MESSAGE = format(
        'role %s may not write sessions of machine %s', current_user,
        CASE WHEN sessiond_may_write(OLD.host_machine, current_user) THEN NEW.host_machine
            ELSE OLD.host_machine END);
END
$$;

DO $do$
DECLARE
    target RECORD;
BEGIN
    FOR target IN VALUES ('supervisor_sessions', 'host_machine'), ('sessiond_hosts', 'machine_name') LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', target.column1);
        EXECUTE format('DROP POLICY IF EXISTS sessiond_read ON %I', target.column1);
        EXECUTE format('DROP POLICY IF EXISTS sessiond_insert ON %I', target.column1);
        EXECUTE format('DROP POLICY IF EXISTS sessiond_update ON %I', target.column1);
        EXECUTE format('DROP POLICY IF EXISTS sessiond_delete ON %I', target.column1);
        EXECUTE format('CREATE POLICY sessiond_read ON %I FOR SELECT USING (true)', target.column1);
        EXECUTE format('CREATE POLICY sessiond_insert ON %I FOR INSERT WITH CHECK (sessiond_may_write(%I, current_user))',
            target.column1, target.column2);
        EXECUTE format('CREATE POLICY sessiond_delete ON %I FOR DELETE USING (sessiond_may_write(%I, current_user))',
            target.column1, target.column2);
    END LOOP;
    CREATE POLICY sessiond_update ON sessiond_hosts FOR UPDATE
        USING (sessiond_may_write(machine_name, current_user))
        WITH CHECK (sessiond_may_write(machine_name, current_user));
    CREATE POLICY sessiond_update ON supervisor_sessions FOR UPDATE
        -- The guard decides which rows may be changed, and how: it alone sees the row of before and that of after.
        USING (true)
        WITH CHECK (status = 'stale' OR sessiond_may_write(host_machine, current_user));
    -- The rate limits that a host shares belong to its machine.
    IF to_regclass('sessiond_limits') IS NOT NULL THEN
        ALTER TABLE sessiond_limits ENABLE ROW LEVEL SECURITY;
        DROP POLICY IF EXISTS sessiond_read ON sessiond_limits;
        DROP POLICY IF EXISTS sessiond_write ON sessiond_limits;
        CREATE POLICY sessiond_read ON sessiond_limits FOR SELECT USING (true);
        CREATE POLICY sessiond_write ON sessiond_limits USING (EXISTS (
            SELECT FROM sessiond_hosts h
            WHERE h.host_id = sessiond_limits.host_id AND sessiond_may_write(h.machine_name, current_user)));
    END IF;
    -- Mirrors follow these notes for 30 days, so no role that is bound to a machine may delete younger ones. Those
    -- of deleted sessions are written by a trigger with its owner's rights.
    FOR target IN VALUES ('sessiond_tombstones', 'deleted_at'), ('sessiond_history', 'added_at') LOOP
        CONTINUE WHEN to_regclass(target.column1) IS NULL;
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', target.column1);
        EXECUTE format('DROP POLICY IF EXISTS sessiond_read ON %I', target.column1);
        EXECUTE format('DROP POLICY IF EXISTS sessiond_insert ON %I', target.column1);
        EXECUTE format('DROP POLICY IF EXISTS sessiond_delete ON %I', target.column1);
        EXECUTE format('CREATE POLICY sessiond_read ON %I FOR SELECT USING (true)', target.column1);
        EXECUTE format('CREATE POLICY sessiond_insert ON %I FOR INSERT '
            'WITH CHECK (sessiond_may_record(instance_id, current_user))', target.column1);
        EXECUTE format('CREATE POLICY sessiond_delete ON %I FOR DELETE USING (%I < now() - interval ''30 days'' '
            'OR sessiond_may_write(NULL, current_user))', target.column1, target.column2);
    END LOOP;
    IF NOT EXISTS (
        SELECT FROM pg_trigger
        WHERE tgrelid = 'supervisor_sessions'::regclass AND tgname = 'trg_zz_sessiond_guard'
    ) THEN
        -- The last by name: it sees the row as it will be.
        CREATE TRIGGER trg_zz_sessiond_guard BEFORE UPDATE ON supervisor_sessions
            FOR EACH ROW EXECUTE FUNCTION sessiond_guard();
    END IF;
    -- What is recorded of a session belongs to that session's machine.
    FOR target IN VALUES ('event_store'), ('command_log'), ('checkpoints'), ('session_work'),
        ('sessiond_activity') LOOP
        CONTINUE WHEN NOT EXISTS (
            SELECT FROM pg_attribute
            WHERE attrelid = to_regclass(target.column1) AND attname = 'instance_id' AND NOT attisdropped);
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', target.column1);
        EXECUTE format('DROP POLICY IF EXISTS sessiond_read ON %I', target.column1);
        EXECUTE format('DROP POLICY IF EXISTS sessiond_write ON %I', target.column1);
        EXECUTE format('CREATE POLICY sessiond_read ON %I FOR SELECT USING (true)', target.column1);
        EXECUTE format('CREATE POLICY sessiond_write ON %I USING (sessiond_may_record(instance_id, current_user))',
            target.column1);
    END LOOP;
END
$do$;

COMMIT;
