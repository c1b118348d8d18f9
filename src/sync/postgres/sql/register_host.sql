-- Registers this host ($1) with its machine name ($2), claim ($3) and version ($4). Returns the newest batch of its
-- ledger.
-- Index: sessiond_hosts_pkey.
INSERT INTO sessiond_hosts AS h (host_id, machine_name, claim, version) VALUES ($1, $2, $3, $4)
ON CONFLICT (host_id) DO UPDATE SET machine_name = excluded.machine_name, claim = excluded.claim,
    version = excluded.version, last_seen = excluded.last_seen, retired_at = NULL, replaced_by = NULL
RETURNING batch
