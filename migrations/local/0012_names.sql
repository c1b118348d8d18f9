-- Names that a reader understands without this program's history. Indexes, triggers and views follow by themselves.

-- Single values by name.
ALTER TABLE facts RENAME TO metadata;
UPDATE metadata SET name = 'mirror_generation' WHERE name = 'mirror_round';

-- Spooled requests that this store applied, and whose files may not be gone yet.
ALTER TABLE taken_in RENAME TO imported_requests;

-- NULL: a session of this host. Else it is mirrored from central, where it was last seen in this generation: the number
-- of times that everything was read.
ALTER TABLE sessions RENAME COLUMN mirror_round TO mirror_generation;

-- How often in a row a row was parked.
ALTER TABLE sessions RENAME COLUMN parkings TO park_count;
ALTER TABLE records RENAME COLUMN parkings TO park_count;
