-- States that this host ($1), under its claim ($2), judges sessions of other hosts by the last contact of those hosts.
-- Index: sessiond_hosts_pkey.
UPDATE sessiond_hosts SET vouching_claim = $2 WHERE host_id = $1 AND vouching_claim IS DISTINCT FROM $2
