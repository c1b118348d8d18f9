-- Replaces the rate limits that this host ($1) shares by others ($3), if they differ and if its claim ($2) is still the
-- newest. A host that never had any gets no row.
-- Index: sessiond_hosts_pkey; sessiond_limits_pkey, by the conflict check.
INSERT INTO sessiond_limits AS l (host_id, limits, changed_at)
SELECT host_id, $3::text::jsonb, now() FROM sessiond_hosts WHERE host_id = $1 AND claim = $2 AND retired_at IS NULL
    AND ($3::text <> '[]' OR EXISTS (SELECT FROM sessiond_limits t WHERE t.host_id = $1))
ON CONFLICT (host_id) DO UPDATE SET limits = excluded.limits, changed_at = excluded.changed_at
WHERE l.limits IS DISTINCT FROM excluded.limits
