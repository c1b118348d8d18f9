-- A role with exactly the rights that a daemon needs in central. To be run by the tables' owner, after
-- `sessiond migrate`, any number of times, and again after an upgrade that brings tables:
--
--   psql -v role=sessiond_daemon -f daemon.sql postgres://OWNER@HOST/supervisor_service
--   psql -c '\password sessiond_daemon' postgres://OWNER@HOST/supervisor_service
--
-- It may not delete anybody's session or record, nor truncate, alter or own anything. With row_security.sql besides, it may write its own
-- machine's rows only.

\if :{?role}
\else
\set role sessiond_daemon
\endif

SELECT format('CREATE ROLE %I LOGIN NOINHERIT', :'role')
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role') \gexec

BEGIN;
SELECT set_config('sessiond.role', :'role', true) \g /dev/null

DO $do$
DECLARE
    daemon CONSTANT TEXT := current_setting('sessiond.role');
    needed RECORD;
BEGIN
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), daemon);
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), daemon);
    FOR needed IN
        SELECT * FROM (VALUES
            ('supervisor_sessions', 'SELECT, INSERT, UPDATE'),
            ('session_work', 'SELECT, INSERT, UPDATE'),
            -- Forgotten after 7 days.
            ('sessiond_activity', 'SELECT, INSERT, UPDATE, DELETE'),
            -- Who is who, the ledger of what was replayed, and whose turn it is to judge the silent.
            ('sessiond_hosts', 'SELECT, INSERT, UPDATE'),
            ('sessiond_limits', 'SELECT, INSERT, UPDATE'),
            -- Whose turn it is to notify; what expired is deleted.
            ('sessiond_leases', 'SELECT, INSERT, UPDATE, DELETE'),
            ('sessiond_sweep', 'SELECT, UPDATE'),
            -- What is recorded of sessions is added, and never changed.
            ('event_store', 'SELECT, INSERT'),
            ('command_log', 'SELECT, INSERT'),
            ('checkpoints', 'SELECT, INSERT'),
            -- What the mirrors follow, forgotten after 30 days. Triggers bury what is deleted, with their owner's rights.
            ('sessiond_tombstones', 'SELECT, DELETE'),
            ('sessiond_history', 'SELECT, INSERT, DELETE'),
            ('active_sessions_by_machine', 'SELECT'),
            ('sessions_with_machine', 'SELECT'),
            -- Which migrations were applied: `sessiond doctor` looks.
            ('sessiond_migrations', 'SELECT')
        ) AS t (name, rights)
    LOOP
        -- Older centrals lack some of these, and newer ones may be without the earlier services' tables.
        IF to_regclass(needed.name) IS NULL THEN
            CONTINUE;
        END IF;
        EXECUTE format('REVOKE ALL ON %s FROM %I', to_regclass(needed.name), daemon);
        EXECUTE format('GRANT %s ON %s TO %I', needed.rights, to_regclass(needed.name), daemon);
    END LOOP;
    -- A column that counts by itself needs its counter.
    FOR needed IN
        SELECT s.oid::regclass AS name
        FROM pg_class s
        JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.oid
            AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
        WHERE s.relkind = 'S' AND d.refobjid IN (
            to_regclass('event_store'), to_regclass('command_log'), to_regclass('checkpoints'),
            to_regclass('sessiond_tombstones'), to_regclass('sessiond_history'))
    LOOP
        EXECUTE format('GRANT USAGE ON SEQUENCE %s TO %I', needed.name, daemon);
    END LOOP;
END
$do$;
COMMIT;
