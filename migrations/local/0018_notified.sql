-- What somebody was notified of, so that a restart of the daemon notifies nobody again.
CREATE TABLE notified (
    key TEXT    PRIMARY KEY,
    at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX notified_at ON notified (at);
