-- Which machine a session runs on. May be run any number of times, with psql -f or `sessiond migrate`,
-- and on an empty database too, where session_registry.sql can still follow.

CREATE TABLE IF NOT EXISTS supervisor_sessions (
    instance_id     VARCHAR(32)  PRIMARY KEY
        CONSTRAINT valid_instance_id CHECK (instance_id ~ '^[a-z0-9-]+-(PS|MS)-[a-z0-9]{6}$'),
    project         VARCHAR(64)  NOT NULL,
    instance_type   VARCHAR(16)  NOT NULL CHECK (instance_type IN ('PS', 'MS')),
    status          VARCHAR(16)  NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'stale', 'closed')),
    context_percent INTEGER      DEFAULT 0 CHECK (context_percent BETWEEN 0 AND 100),
    current_epic    VARCHAR(256),
    last_heartbeat  TIMESTAMP    NOT NULL DEFAULT CURRENT_TIMESTAMP,
    created_at      TIMESTAMP    NOT NULL DEFAULT CURRENT_TIMESTAMP,
    closed_at       TIMESTAMP
);

-- Sessions from before there was a second machine ran on odin3.
ALTER TABLE supervisor_sessions ADD COLUMN IF NOT EXISTS host_machine VARCHAR(64) NOT NULL DEFAULT 'odin3';

DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_constraint
        WHERE conrelid = 'supervisor_sessions'::regclass AND conname = 'valid_host_machine'
    ) THEN
        ALTER TABLE supervisor_sessions
            ADD CONSTRAINT valid_host_machine CHECK (host_machine ~ '^[a-z0-9][a-z0-9_-]*$');
    END IF;
END
$$;

CREATE INDEX IF NOT EXISTS idx_supervisor_sessions_host_machine
    ON supervisor_sessions (host_machine);
CREATE INDEX IF NOT EXISTS idx_supervisor_sessions_machine_status
    ON supervisor_sessions (host_machine, status);
CREATE INDEX IF NOT EXISTS idx_supervisor_sessions_machine_heartbeat
    ON supervisor_sessions (host_machine, last_heartbeat DESC);

-- The views. One that is already there with other columns cannot be replaced in place: it is made
-- anew, and whoever was allowed to use it still is.
DO $do$
DECLARE
    view_name TEXT;
    definition TEXT;
    grants TEXT[];
    owner_name TEXT;
    statement TEXT;
BEGIN
    FOR view_name, definition IN VALUES
        ('active_sessions_by_machine', $view$
            SELECT
                host_machine,
                COUNT(*) AS total_sessions,
                COUNT(*) FILTER (WHERE status = 'active') AS active_sessions,
                COUNT(*) FILTER (WHERE status = 'stale') AS stale_sessions,
                COUNT(*) FILTER (WHERE status = 'closed') AS closed_sessions,
                MAX(last_heartbeat) AS last_activity,
                STRING_AGG(DISTINCT project, ', ' ORDER BY project) AS projects
            FROM supervisor_sessions
            GROUP BY host_machine
            ORDER BY MAX(last_heartbeat) DESC
        $view$),
        ('sessions_with_machine', $view$
            SELECT
                instance_id, project, instance_type, status, context_percent, current_epic,
                last_heartbeat, created_at, closed_at, host_machine,
                FLOOR(EXTRACT(EPOCH FROM (CURRENT_TIMESTAMP - last_heartbeat)))::INTEGER AS age_seconds
            FROM supervisor_sessions
            ORDER BY host_machine, last_heartbeat DESC
        $view$)
    LOOP
        BEGIN
            EXECUTE format('CREATE OR REPLACE VIEW %I AS %s', view_name, definition);
        EXCEPTION WHEN invalid_table_definition THEN
            SELECT pg_get_userbyid(c.relowner),
                ARRAY(
                    SELECT format('GRANT %s ON %s TO %s%s', a.privilege_type, c.oid::regclass,
                        CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
                        CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
                    FROM aclexplode(c.relacl) a
                    WHERE a.grantee <> c.relowner
                )
            INTO owner_name, grants
            FROM pg_class c WHERE c.oid = to_regclass(quote_ident(view_name));
            BEGIN
                EXECUTE format('DROP VIEW %I', view_name);
                EXECUTE format('CREATE VIEW %I AS %s', view_name, definition);
                FOREACH statement IN ARRAY grants LOOP
                    EXECUTE statement;
                END LOOP;
                EXECUTE format('ALTER VIEW %I OWNER TO %I', view_name, owner_name);
            EXCEPTION WHEN dependent_objects_still_exist THEN
                RAISE WARNING 'view % keeps its old columns, since others depend on it', view_name
                    USING HINT = 'Drop those that depend on it, and run this again.';
            END;
        END;
    END LOOP;
END
$do$;
