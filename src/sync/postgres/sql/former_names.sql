-- Returns the machine names that this host ($1) had before, under its former host ids ($2) with its own claims ($3). A
-- name that another host took over while this one had it is one of them.
-- Index: sessiond_hosts_pkey.
SELECT DISTINCT machine_name FROM sessiond_hosts
WHERE host_id = ANY($2) AND host_id <> $1 AND (replaced_by = $1 OR claim = ANY($3)) ORDER BY 1
