-- Retires the rows under which this host ($1) was registered before it was renamed ($2), if their claim is one of its
-- own ($3).
-- Index: sessiond_hosts_pkey.
UPDATE sessiond_hosts SET retired_at = least(retired_at, now()), replaced_by = $1
WHERE host_id = ANY($2) AND host_id <> $1 AND claim = ANY($3)
    AND (retired_at IS NULL OR replaced_by = ANY($2))
