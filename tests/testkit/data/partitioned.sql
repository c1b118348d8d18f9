-- The tables of the earlier services in partitions, which lie in another schema: sessions by the hash of their id, events by
-- time, commands and checkpoints by session. `sessiond migrate` follows.

CREATE SCHEMA "Parts";

CREATE TABLE supervisor_sessions (
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
) PARTITION BY HASH (instance_id);
CREATE TABLE "Parts".sessions_0 PARTITION OF supervisor_sessions FOR VALUES WITH (MODULUS 3, REMAINDER 0);
CREATE TABLE "Parts".sessions_1 PARTITION OF supervisor_sessions FOR VALUES WITH (MODULUS 3, REMAINDER 1);
CREATE TABLE "Parts".sessions_2 PARTITION OF supervisor_sessions FOR VALUES WITH (MODULUS 3, REMAINDER 2);

CREATE TABLE event_store (
    event_id UUID DEFAULT gen_random_uuid(),
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
    PRIMARY KEY (event_id, created_at)
) PARTITION BY RANGE (created_at);
CREATE INDEX ON event_store (instance_id, sequence_num);
CREATE TABLE "Parts".events_of_2025 PARTITION OF event_store FOR VALUES FROM (MINVALUE) TO ('2026-01-01');
CREATE TABLE "Parts".events PARTITION OF event_store DEFAULT;

CREATE TABLE command_log (
    id BIGSERIAL,
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
    source VARCHAR(32) DEFAULT 'auto',
    PRIMARY KEY (id, instance_id)
) PARTITION BY HASH (instance_id);
CREATE TABLE "Parts".commands_0 PARTITION OF command_log FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE "Parts".commands_1 PARTITION OF command_log FOR VALUES WITH (MODULUS 2, REMAINDER 1);

CREATE TYPE checkpoint_type AS ENUM ('context_window', 'epic_completion', 'manual');
CREATE TABLE checkpoints (
    checkpoint_id UUID DEFAULT gen_random_uuid(),
    instance_id VARCHAR(32) NOT NULL REFERENCES supervisor_sessions (instance_id) ON DELETE CASCADE,
    checkpoint_type checkpoint_type NOT NULL,
    sequence_num BIGINT NOT NULL,
    context_window_percent INT CHECK (context_window_percent BETWEEN 0 AND 100),
    timestamp TIMESTAMPTZ NOT NULL DEFAULT now(),
    work_state JSONB NOT NULL,
    metadata JSONB DEFAULT '{}',
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (checkpoint_id, instance_id)
) PARTITION BY HASH (instance_id);
CREATE TABLE "Parts".checkpoints_0 PARTITION OF checkpoints FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE "Parts".checkpoints_1 PARTITION OF checkpoints FOR VALUES WITH (MODULUS 2, REMAINDER 1);

-- Hosts follow these two; a large installation may have them in partitions, too.
CREATE TABLE sessiond_tombstones (
    instance_id VARCHAR(32) NOT NULL,
    created_at  TIMESTAMPTZ NOT NULL,
    changed_xid xid8        NOT NULL,
    deleted_at  TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (changed_xid, instance_id)
) PARTITION BY HASH (instance_id);
CREATE TABLE "Parts".tombstones_0 PARTITION OF sessiond_tombstones FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE "Parts".tombstones_1 PARTITION OF sessiond_tombstones FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE sessiond_history (
    instance_id VARCHAR(64) NOT NULL,
    changed_xid xid8        NOT NULL,
    changed_by  UUID        DEFAULT nullif(current_setting('sessiond.host', true), '')::uuid,
    added_at    TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (changed_xid, instance_id)
) PARTITION BY HASH (instance_id);
CREATE TABLE "Parts".histories_0 PARTITION OF sessiond_history FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE "Parts".histories_1 PARTITION OF sessiond_history FOR VALUES WITH (MODULUS 2, REMAINDER 1);
