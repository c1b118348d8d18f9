-- Returns the oldest running transaction, and all that are running. Every transaction that is not visible yet is at least as new.
-- Index: none, reads no table.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint, pg_current_snapshot()::text
