-- Lets any host turn the sessions of vanished hosts stale again where rights/row_security.sql was run: the guard of
-- 1790000000000_silent_sessions_and_views.sql refuses it, because the triggers of 1791000000000_merge_by_column.sql write
-- columns that it does not know. May be run any number of times, with psql -f or `sessiond migrate`, after the files
-- before it. The functions are the same as in rights/row_security.sql.
DO $do$
BEGIN
    IF to_regprocedure('sessiond_guard()') IS NOT NULL
        AND to_regprocedure('sessiond_may_write(text, name)') IS NOT NULL
    THEN
        EXECUTE $guard$
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
            $$
        $guard$;
    END IF;
END
$do$;
