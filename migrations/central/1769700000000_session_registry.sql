-- The registry of AI coding sessions. May be run any number of times, with psql -f or `sessiond migrate`.

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

CREATE INDEX IF NOT EXISTS idx_supervisor_sessions_project_status
    ON supervisor_sessions (project, status);
CREATE INDEX IF NOT EXISTS idx_supervisor_sessions_instance_id
    ON supervisor_sessions (instance_id);
CREATE INDEX IF NOT EXISTS idx_supervisor_sessions_last_heartbeat
    ON supervisor_sessions (last_heartbeat DESC);
CREATE INDEX IF NOT EXISTS idx_supervisor_sessions_project_heartbeat
    ON supervisor_sessions (project, last_heartbeat DESC);

-- A client that changes what a session works on need not set the time of the heartbeat itself.
CREATE OR REPLACE FUNCTION update_last_heartbeat() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    -- Asked again, because an existing trigger may call this on every update.
    IF NEW.context_percent IS DISTINCT FROM OLD.context_percent
        OR NEW.current_epic IS DISTINCT FROM OLD.current_epic
    THEN
        NEW.last_heartbeat := CURRENT_TIMESTAMP;
    END IF;
    RETURN NEW;
END
$$;

DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_trigger
        WHERE tgrelid = 'supervisor_sessions'::regclass AND tgname = 'trg_supervisor_sessions_heartbeat'
    ) THEN
        CREATE TRIGGER trg_supervisor_sessions_heartbeat
            BEFORE UPDATE ON supervisor_sessions
            FOR EACH ROW
            WHEN (OLD.context_percent IS DISTINCT FROM NEW.context_percent
                OR OLD.current_epic IS DISTINCT FROM NEW.current_epic)
            EXECUTE FUNCTION update_last_heartbeat();
    END IF;
END
$$;
