-- Returns in one row the hosts that central knows, or those of them that are named ($1), without those that were replaced:
-- their ids, names and last contacts; and whether all of them judge sessions by the last contact of hosts, apart from
-- those that were not seen for a day.
-- VOUCHING_CLAIM is replaced by the column; where the table had none at the handshake, it is read from the whole
-- row.
-- Index: sessiond_hosts_pkey for those that are named; none for all, which reads the whole table, with one row per host.
SELECT coalesce(array_agg(host_id), '{}'), coalesce(array_agg(machine_name::text), '{}'),
    coalesce(array_agg(last_seen), '{}'),
    bool_and(last_seen < (SELECT now() - interval '1 day') OR (VOUCHING_CLAIM = claim) IS TRUE) IS NOT FALSE
FROM sessiond_hosts
WHERE retired_at IS NULL AND ($1::uuid[] IS NULL OR host_id = ANY($1))
