-- Notifies the other daemons that this host joined.
-- Index: none, reads no table.
SELECT pg_notify('sessiond', $1)
