-- Returns the root and depth of events ($1).
-- Index: event_store_pkey.
SELECT event_id, coalesce(root_uuid, event_id), coalesce(depth, 0) FROM event_store
WHERE event_id = ANY($1)
