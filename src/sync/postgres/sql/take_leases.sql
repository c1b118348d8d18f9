-- Takes the leases $3 for this host ($1) until $4 microseconds from now, if its claim ($2) is still the newest: those that no
-- other host has, or whose time has passed. Returns which of them it has now. What expired a day ago is deleted by the way.
-- A lease that another host has is not tried: the conflict check would lock its row, for each attempt of a large fleet.
-- Index: sessiond_hosts_pkey; sessiond_leases_pkey, by the conflict check; sessiond_leases_expires_at.
WITH expired AS (
    DELETE FROM sessiond_leases WHERE name IN (
        SELECT name FROM sessiond_leases WHERE expires_at < now() - interval '1 day' AND name <> ALL ($3)
        LIMIT 100 FOR UPDATE SKIP LOCKED)
)
INSERT INTO sessiond_leases AS l (name, host_id, expires_at)
SELECT wanted.name, h.host_id, now() + $4 * interval '1 microsecond'
FROM (SELECT DISTINCT name FROM unnest($3::text[]) AS given (name)) AS wanted, sessiond_hosts h
WHERE h.host_id = $1 AND h.claim = $2 AND h.retired_at IS NULL
    AND NOT EXISTS (SELECT FROM sessiond_leases t
        WHERE t.name = wanted.name AND t.host_id <> $1 AND t.expires_at > now())
ORDER BY wanted.name
ON CONFLICT (name) DO UPDATE SET host_id = excluded.host_id, expires_at = excluded.expires_at
WHERE l.host_id = excluded.host_id OR l.expires_at <= now()
RETURNING name
