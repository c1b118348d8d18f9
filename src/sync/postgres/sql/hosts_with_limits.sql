-- Returns the hosts that central knows, without those that were replaced, and the rate limits that they share. What is
-- larger than any daemon writes is left out.
-- Index: none, reads both tables, which have one row per host.
SELECT machine_name::text,
    (CASE WHEN last_seen IS NOT NULL THEN extract(epoch FROM greatest(least(last_seen, '9999-12-31Z'), '0001-01-01Z')) * 1000000 END)::bigint,
    CASE WHEN octet_length(l.limits::text) <= 524288 THEN l.limits::text END
FROM sessiond_hosts h LEFT JOIN sessiond_limits l USING (host_id) WHERE h.retired_at IS NULL
