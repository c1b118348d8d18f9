-- The oldest id that a session went by is asked for with every heartbeat. Without an order to read it in, SQLite
-- makes a table to sort in each time, which was a fifth of what a heartbeat cost.

DROP INDEX aliases_instance_id;
CREATE INDEX aliases_instance_id ON aliases (instance_id, made_at);
