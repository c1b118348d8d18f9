-- Returns whether hosts can state their stale_after, and whether they can state that they judge sessions by the last contact
-- of hosts: a central that an older sessiond migrated lacks the columns.
-- Index: of the catalog.
SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('sessiond_hosts') AND attname = 'stale_after'
        AND NOT attisdropped),
    EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('sessiond_hosts') AND attname = 'vouching_claim'
        AND NOT attisdropped)
