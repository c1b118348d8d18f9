//! What can go wrong with the store, sorted by what it means for the caller.

use rusqlite::ErrorCode;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("no session \"{0}\" is known here")]
    NotFound(String),
    #[error("nothing that goes by \"{0}\" is parked")]
    NotParked(String),
    #[error("session {0} is closed")]
    Closed(String),
    /// It is mirrored from another host, or central alone keeps it by now.
    #[error("session {id} of machine {machine} is not kept here")]
    Elsewhere { id: String, machine: String },
    #[error("session {id} belongs to user {owner}")]
    Forbidden { id: String, owner: u32 },
    #[error("the writer has more to do than it may hold")]
    Busy,
    #[error("the disk, or the store's max_size, is full: {0}")]
    Full(String),
    #[error("the disk does not answer as it should: {0}")]
    Io(String),
    #[error("the store is damaged: {0}")]
    Damaged(String),
    #[error("{0}")]
    Bug(String),
}

impl StoreError {
    /// Whether the same request may succeed later, with nothing changed in it.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Busy | Self::Full(_) | Self::Io(_) | Self::Damaged(_))
    }
}

/// SQLite's result codes, each sorted once, here.
impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let text = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full(text),
            Some(
                ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied,
            ) => Self::Io(text),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(text),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            _ => Self::Bug(text),
        }
    }
}

/// Why the state folder cannot be used; the daemon stops before it serves anyone.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("another sessiond already uses the state folder {dir}{}", .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    InUse { dir: String, pid: Option<u32> },
    #[error("the store {path} has schema {found}, this sessiond knows only up to {known}; it is left untouched")]
    Newer { path: String, found: i64, known: i64 },
    #[error("the state folder {dir} cannot be used: {source}")]
    Folder { dir: String, source: std::io::Error },
    #[error("SQLite {found} is linked; versions before 3.51.3 can lose committed writes")]
    OldSqlite { found: &'static str },
    #[error("{path} cannot be read as a pinned identity: {why}")]
    Pin { path: String, why: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}
