-- Returns whether hosts can state their stale_after: a central that an older sessiond migrated lacks the column.
-- Index: of the catalog.
SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('sessiond_hosts') AND attname = 'stale_after'
    AND NOT attisdropped)
