-- Returns in one row the hosts that central knows, or those of them that are named ($1), without those that were replaced:
-- their ids, names and last contacts; and whether all of them judge sessions by the last contact of hosts, apart from
-- those that were not seen for a day.
-- Where the table has no vouching_claim, the name means that of `missing`.
-- Index: sessiond_hosts_pkey for those that are named; none for all, which reads the whole table, with one row per host.
SELECT coalesce(array_agg(host_id), '{}'), coalesce(array_agg(machine_name::text), '{}'),
    coalesce(array_agg((CASE WHEN last_seen IS NOT NULL THEN extract(epoch FROM greatest(least(last_seen, '9999-12-31Z'), '0001-01-01Z')) * 1000000 END)::bigint), '{}'),
    coalesce(bool_and(last_seen < now() - interval '1 day'
        OR coalesce((SELECT vouching_claim FROM (SELECT h.*) AS row) = claim, false)), true)
FROM sessiond_hosts h, (SELECT NULL::uuid AS vouching_claim) AS missing
WHERE retired_at IS NULL AND ($1::uuid[] IS NULL OR host_id = ANY($1))
