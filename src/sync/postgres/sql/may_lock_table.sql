-- Returns whether this login may lock a table ($1) against writers.
-- Index: of the catalog.
SELECT has_table_privilege($1, 'UPDATE')
