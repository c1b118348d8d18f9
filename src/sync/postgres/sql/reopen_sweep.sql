-- Makes the next sweep of any host due at once.
-- Index: none, the table has one row.
UPDATE sessiond_sweep SET swept_at = '-infinity'
