-- Advances the ledger of host $2, which holds claim $3, from batch $4 to $1. Returns central's time, and when the transaction
-- began. No row: the ledger stands elsewhere, or the host lost its name. The values are inserted as literals, because the
-- statement goes in one round trip with BEGIN.
-- Index: sessiond_hosts_pkey.
UPDATE sessiond_hosts SET batch = $1, last_seen = clock_timestamp()
WHERE host_id = $2 AND claim = $3 AND batch = $4 AND retired_at IS NULL
RETURNING (CASE WHEN last_seen IS NOT NULL THEN extract(epoch FROM greatest(least(last_seen, '9999-12-31Z'), '0001-01-01Z') - timestamptz 'epoch') * 1000000 END)::bigint,
    (extract(epoch FROM now()) * 1000000)::bigint
