-- As hosts.sql, and which hosts share rate limits, and when those of each changed last.
-- Index: sessiond_hosts_pkey and sessiond_limits_pkey for those that are named; none for all, which reads both tables, with
-- one row per host.
SELECT hosts.*, limits.* FROM (
    SELECT coalesce(array_agg(host_id), '{}'), coalesce(array_agg(machine_name::text), '{}'),
        coalesce(array_agg(last_seen), '{}'),
        bool_and(last_seen < (SELECT now() - interval '1 day') OR (VOUCHING_CLAIM = claim) IS TRUE) IS NOT FALSE
    FROM sessiond_hosts
    WHERE retired_at IS NULL AND ($1::uuid[] IS NULL OR host_id = ANY($1))
) AS hosts, (
    SELECT coalesce(array_agg(host_id), '{}'), coalesce(array_agg(changed_at), '{}') FROM sessiond_limits
    WHERE $1::uuid[] IS NULL OR host_id = ANY($1)
) AS limits
