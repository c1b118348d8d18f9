-- Returns the row of host $1, to find out why its ledger did not advance.
-- Index: sessiond_hosts_pkey.
SELECT machine_name, claim, retired_at IS NOT NULL, replaced_by,
    (CASE WHEN last_seen IS NOT NULL THEN extract(epoch FROM greatest(least(last_seen, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000 END)::bigint,
    batch
FROM sessiond_hosts WHERE host_id = $1
