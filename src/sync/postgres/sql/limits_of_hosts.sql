-- Returns the rate limits that these hosts ($1) share. What is larger than any daemon writes is left out.
-- Index: sessiond_limits_pkey.
SELECT host_id, CASE WHEN octet_length(limits::text) <= 524288 THEN limits::text END
FROM sessiond_limits WHERE host_id = ANY($1)
