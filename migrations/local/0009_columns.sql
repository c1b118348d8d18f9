-- Sessions are merged with central by column.

-- Which version changed each shared column last, and when: 16 bytes a column, see src/store/columns.rs. NULL: not known;
-- each was changed at the last heartbeat at the latest.
ALTER TABLE sessions ADD COLUMN column_changes BLOB;
-- The newest version that central acknowledged: columns that later versions changed are offered. 0: all are.
ALTER TABLE sessions ADD COLUMN synced_version INTEGER NOT NULL DEFAULT 0;

-- What central lacks is offered whole; of the rest central has every column.
UPDATE sessions SET synced_version = version WHERE unsynced_since IS NULL;
