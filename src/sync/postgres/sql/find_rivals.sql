-- Locks and returns the row of this host ($1), and of the live host that has its machine name ($2).
-- Index: sessiond_hosts_pkey and sessiond_hosts_machine_name.
SELECT host_id, machine_name, claim, retired_at IS NOT NULL, replaced_by,
    (CASE WHEN last_seen IS NOT NULL THEN extract(epoch FROM greatest(least(last_seen, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000 END)::bigint,
    batch
FROM sessiond_hosts WHERE host_id = $1 OR (machine_name = $2 AND retired_at IS NULL)
ORDER BY host_id FOR UPDATE
