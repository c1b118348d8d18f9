-- The rate limits that this machine's agents observed, each as last seen.
CREATE TABLE rate_limits (
    -- The user whose agents observed it.
    uid          INTEGER NOT NULL,
    -- Empty: the account is not known.
    account      TEXT    NOT NULL,
    window_name  TEXT    NOT NULL,
    used_percent REAL,
    resets_at    INTEGER,
    observed_at  INTEGER NOT NULL,
    PRIMARY KEY (uid, account, window_name)
) STRICT, WITHOUT ROWID;

-- JSON: the rate limits that a host shares.
ALTER TABLE hosts ADD COLUMN limits TEXT NOT NULL DEFAULT '[]';
