-- Returns the server process of this connection, to detect a pooler.
-- Index: none, reads no table.
SELECT pg_backend_pid()
