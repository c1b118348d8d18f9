-- Returns whether the table of sessions has a unique index on instance_id alone, by which a push finds the row of a session,
-- and whether the table is partitioned. No row: there is no such table.
-- Index: of the catalog.
SELECT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        WHERE i.indrelid = c.oid AND i.indnkeyatts = 1 AND a.attname = 'instance_id' AND i.indisunique AND i.indisvalid
            AND i.indimmediate AND i.indpred IS NULL),
    c.relkind = 'p'
FROM pg_class c WHERE c.oid = to_regclass('supervisor_sessions')
