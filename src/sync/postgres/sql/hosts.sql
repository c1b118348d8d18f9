-- Returns the hosts that central knows, without those that were replaced.
-- Index: none, reads the whole table, which has one row per host.
SELECT machine_name::text,
    (CASE WHEN last_seen IS NOT NULL THEN extract(epoch FROM greatest(least(last_seen, '9999-12-31Z'), '0001-01-01Z')) * 1000000 END)::bigint
FROM sessiond_hosts WHERE retired_at IS NULL
