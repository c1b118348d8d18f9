-- What newer installations have besides.

ALTER TABLE event_store ADD COLUMN parent_uuid UUID, ADD COLUMN root_uuid UUID, ADD COLUMN depth INTEGER DEFAULT 0;
ALTER TABLE event_store DROP CONSTRAINT event_store_event_type_check;
ALTER TABLE event_store ADD CONSTRAINT event_store_event_type_check CHECK (event_type IN ('instance_registered',
    'instance_heartbeat', 'instance_stale', 'epic_started', 'epic_completed', 'epic_failed', 'test_started',
    'test_passed', 'test_failed', 'validation_passed', 'validation_failed', 'commit_created', 'pr_created', 'pr_merged',
    'deployment_started', 'deployment_completed', 'deployment_failed', 'context_window_updated', 'checkpoint_created',
    'checkpoint_loaded', 'epic_planned', 'feature_requested', 'task_spawned', 'user_message', 'assistant_start',
    'spawn_decision', 'tool_use', 'tool_result', 'error'));
