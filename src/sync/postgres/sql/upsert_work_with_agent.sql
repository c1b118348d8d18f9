-- As upsert_work.sql, where session_work has columns for the agent.
-- Index: session_work_pkey, by the conflict check.
INSERT INTO session_work AS w (instance_id, activity, waiting_for, activity_detail, activity_since, activity_source,
    kind, title, repository, branch, worktree, model, cost_usd, snapshot, recorded_at, activity_ended, agent,
    agent_session_id, agent_version)
SELECT instance_id, activity, waiting_for, activity_detail,
    least((timestamptz 'epoch' + activity_since * interval '1 microsecond'), now()), activity_source, kind, title,
    repository, branch, worktree, model, cost_usd, snapshot::jsonb,
    least((timestamptz 'epoch' + recorded_at * interval '1 microsecond'), now()), activity_ended, agent,
    agent_session_id, agent_version
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[], $8::text[],
    $9::text[], $10::text[], $11::text[], $12::text[], $13::float8[], $14::text[], $15::bigint[], $16::bool[], $17::text[],
    $18::text[], $19::text[])
    AS pushed (instance_id, activity, waiting_for, activity_detail, activity_since, activity_source, kind, title,
    repository, branch, worktree, model, cost_usd, snapshot, recorded_at, activity_ended, agent, agent_session_id,
    agent_version)
ORDER BY instance_id
ON CONFLICT (instance_id) DO UPDATE SET activity = excluded.activity, waiting_for = excluded.waiting_for,
    activity_detail = excluded.activity_detail, activity_since = excluded.activity_since,
    activity_source = excluded.activity_source, activity_ended = excluded.activity_ended, kind = excluded.kind, title = excluded.title,
    repository = excluded.repository, branch = excluded.branch, worktree = excluded.worktree, model = excluded.model,
    cost_usd = excluded.cost_usd, snapshot = excluded.snapshot, recorded_at = excluded.recorded_at,
    agent = excluded.agent, agent_session_id = excluded.agent_session_id, agent_version = excluded.agent_version
WHERE excluded.recorded_at >= w.recorded_at OR w.recorded_at > now()
