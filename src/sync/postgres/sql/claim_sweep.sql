-- Claims the sweep for this host if none was made for an interval ($1, microseconds). A time in the future was written
-- by mistake and blocks no other statement.
-- Index: none, the table has one row.
UPDATE sessiond_sweep SET swept_at = now()
WHERE swept_at > now() OR swept_at <= now() - ($1::bigint * interval '1 microsecond')
RETURNING one_row
