-- What is parked is tried again by itself: when next, and how often it was parked in a row.

ALTER TABLE sessions ADD COLUMN retry_at INTEGER;
ALTER TABLE sessions ADD COLUMN parkings INTEGER NOT NULL DEFAULT 0;
-- NULL while parked: its event type is one that central does not list; freed when central lists it.
ALTER TABLE records ADD COLUMN retry_at INTEGER;
ALTER TABLE records ADD COLUMN parkings INTEGER NOT NULL DEFAULT 0;

UPDATE sessions SET retry_at = parked_at WHERE parked_at IS NOT NULL;
UPDATE records SET retry_at = parked_at WHERE parked_at IS NOT NULL
    AND parked_error IS NOT 'central''s event_store takes no event of this type; it is kept here';
