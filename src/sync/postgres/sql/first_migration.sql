-- Returns the transaction that wrote the first migration: another one where a dump was restored, even if all else is
-- equal.
-- Index: sessiond_migrations_pkey.
SELECT xmin::text FROM sessiond_migrations ORDER BY version LIMIT 1
