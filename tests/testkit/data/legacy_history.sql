-- The three tables of a full installation of the earlier services, as they stand today.

CREATE TABLE command_log (
    id BIGSERIAL PRIMARY KEY,
    instance_id VARCHAR(64) NOT NULL REFERENCES supervisor_sessions (instance_id) ON DELETE CASCADE,
    command_type VARCHAR(32) NOT NULL CHECK (command_type IN ('mcp_tool', 'explicit')),
    action VARCHAR(128) NOT NULL,
    tool_name VARCHAR(128),
    parameters JSONB NOT NULL DEFAULT '{}',
    result JSONB,
    error_message TEXT,
    success BOOLEAN DEFAULT true,
    execution_time_ms INTEGER,
    tags JSONB NOT NULL DEFAULT '[]',
    context_data JSONB DEFAULT '{}',
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    source VARCHAR(32) DEFAULT 'auto'
);
CREATE INDEX idx_command_log_instance ON command_log (instance_id, created_at DESC);

CREATE TABLE event_store (
    event_id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    instance_id VARCHAR(32) NOT NULL REFERENCES supervisor_sessions (instance_id) ON DELETE CASCADE,
    event_type VARCHAR(64) NOT NULL CHECK (event_type IN ('instance_registered', 'instance_heartbeat',
        'instance_stale', 'epic_started', 'epic_completed', 'epic_failed', 'test_started', 'test_passed', 'test_failed',
        'validation_passed', 'validation_failed', 'commit_created', 'pr_created', 'pr_merged', 'deployment_started',
        'deployment_completed', 'deployment_failed', 'context_window_updated', 'checkpoint_created',
        'checkpoint_loaded', 'epic_planned', 'feature_requested', 'task_spawned')),
    sequence_num BIGINT NOT NULL,
    timestamp TIMESTAMPTZ NOT NULL DEFAULT now(),
    event_data JSONB NOT NULL DEFAULT '{}',
    metadata JSONB DEFAULT '{}',
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    UNIQUE (instance_id, sequence_num)
);

CREATE TYPE checkpoint_type AS ENUM ('context_window', 'epic_completion', 'manual');
CREATE TABLE checkpoints (
    checkpoint_id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    instance_id VARCHAR(32) NOT NULL REFERENCES supervisor_sessions (instance_id) ON DELETE CASCADE,
    checkpoint_type checkpoint_type NOT NULL,
    sequence_num BIGINT NOT NULL,
    context_window_percent INT CHECK (context_window_percent BETWEEN 0 AND 100),
    timestamp TIMESTAMPTZ NOT NULL DEFAULT now(),
    work_state JSONB NOT NULL,
    metadata JSONB DEFAULT '{}',
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE FUNCTION refuse_checkpoint_update() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'checkpoints are immutable';
END
$$;
CREATE TRIGGER trg_checkpoints_immutable BEFORE UPDATE ON checkpoints
    FOR EACH ROW EXECUTE FUNCTION refuse_checkpoint_update();
