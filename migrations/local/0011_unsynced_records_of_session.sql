-- Whether central lacks records of a session, however long its history is: pruning asks this of each closed session.
CREATE INDEX IF NOT EXISTS records_unsynced_of_session ON records (instance_id, kind) WHERE unsynced = 1;
