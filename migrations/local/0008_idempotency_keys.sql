-- Requests that came with an Idempotency-Key, for a day: a retry under the same key gets the first answer instead of
-- doing the same again.

CREATE TABLE idempotency_keys (
    -- Grows with each key: the oldest of a user go first.
    seq INTEGER PRIMARY KEY,
    owner_uid INTEGER NOT NULL,
    key TEXT NOT NULL,
    -- SHA-256 of the request: another request under the same key is refused.
    fingerprint BLOB NOT NULL,
    made_at INTEGER NOT NULL,
    -- What was answered, as JSON; or the record that the answer is made of.
    answer TEXT,
    record_id BLOB
);

CREATE UNIQUE INDEX idempotency_keys_of_user ON idempotency_keys (owner_uid, key);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (made_at);
CREATE INDEX idempotency_keys_in_order ON idempotency_keys (owner_uid, seq);
