-- Returns whether the server numbers its transactions so that hosts can find changes by them, and what it calls itself.
-- Index: of the catalog.
SELECT to_regprocedure('pg_current_xact_id()') IS NOT NULL AND to_regtype('xid8') IS NOT NULL,
    split_part(version(), ' on ', 1)
