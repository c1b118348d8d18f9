-- States this host's ($1) stale_after, in microseconds ($2), if it changed.
-- Index: sessiond_hosts_pkey.
UPDATE sessiond_hosts SET stale_after = ($2::bigint * interval '1 microsecond')
WHERE host_id = $1 AND stale_after IS DISTINCT FROM ($2::bigint * interval '1 microsecond')
