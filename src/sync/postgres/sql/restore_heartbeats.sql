-- Puts back the heartbeats ($2) of the sessions ($1) that the trigger of an earlier installation has stamped with the
-- current time. The trigger does nothing if only the heartbeat changes.
-- Index: idx_supervisor_sessions_last_heartbeat, supervisor_sessions_pkey or idx_supervisor_sessions_instance_id.
UPDATE supervisor_sessions s SET last_heartbeat = (timestamptz 'epoch' + pushed.last_heartbeat * interval '1 microsecond')
FROM unnest($1::text[], $2::bigint[]) AS pushed (instance_id, last_heartbeat)
WHERE s.instance_id = pushed.instance_id AND s.last_heartbeat = now()
    AND (timestamptz 'epoch' + pushed.last_heartbeat * interval '1 microsecond') < now()
