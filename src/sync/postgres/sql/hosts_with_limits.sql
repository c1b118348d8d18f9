-- As hosts.sql, and when the rate limits that each host shares changed last; 0: it shares none.
-- Index: sessiond_hosts_pkey for those that are named; none for all, which reads both tables, with one row per host.
SELECT coalesce(array_agg(host_id), '{}'), coalesce(array_agg(machine_name::text), '{}'),
    coalesce(array_agg((CASE WHEN last_seen IS NOT NULL THEN extract(epoch FROM greatest(least(last_seen, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000 END)::bigint), '{}'),
    bool_and(last_seen < now() - interval '1 day' OR (VOUCHING_CLAIM = claim) IS TRUE) IS NOT FALSE,
    coalesce(array_agg(coalesce((CASE WHEN changed_at IS NOT NULL THEN extract(epoch FROM greatest(least(changed_at, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000 END)::bigint, 0)), '{}')
FROM sessiond_hosts LEFT JOIN sessiond_limits USING (host_id)
WHERE retired_at IS NULL AND ($1::uuid[] IS NULL OR host_id = ANY($1))
