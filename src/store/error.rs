//! What can go wrong with the store, sorted by what it means for the caller.

use std::io;

use rusqlite::{ErrorCode, ffi};

use crate::domain::Reason;
use crate::platform::disk;
use crate::platform::lock_holder::LockHolder;

/// Why an operation on the store failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No session has this id.
    #[error("no session \"{0}\" is known here")]
    NotFound(String),
    /// No parked session or record has this id.
    #[error("nothing that goes by \"{0}\" is parked")]
    NotParked(String),
    /// This session is closed, which is permanent.
    #[error("session {0} is closed")]
    Closed(String),
    /// It is mirrored from another host, or central alone keeps it by now.
    #[error("session {id} of machine {machine} is not kept here")]
    Elsewhere {
        /// The session.
        id: String,
        /// Its machine.
        machine: String,
    },
    /// The session is another user's.
    #[error("session {id} belongs to user {owner}")]
    Forbidden {
        /// The session.
        id: String,
        /// The user id of its owner.
        owner: u32,
    },
    /// The page should begin after a record that is not known.
    #[error("after: no record {0} of this session is known here")]
    NoSuchRecord(String),
    /// This key came with another request within 24 hours.
    #[error("the Idempotency-Key \"{0}\" came with another request before")]
    KeyReused(String),
    /// SQLITE_BUSY: a lock that is not the daemon's own.
    #[error("another program holds the database locked{}", .0.as_ref().map(|by| format!(": {by}")).unwrap_or_default())]
    Held(Option<LockHolder>),
    /// The writer's queue is full.
    #[error("the writer has more to do than it may hold")]
    Busy,
    /// Writers kept a long check from finishing.
    #[error("the check of the store was given up, since too much was written meanwhile")]
    CheckGivenUp,
    /// SQLite's or the system's message about the space that is missing.
    #[error("the disk, or the store's max_size, is full: {0}")]
    Full(#[source] Reason),
    /// The write would exceed the user's share.
    #[error("user {uid} has used their share of the store, {}", bytesize::ByteSize(*.share))]
    UserFull {
        /// The user.
        uid: u32,
        /// The share, in bytes.
        share: u64,
    },
    /// The user has too many open sessions.
    #[error("user {uid} has {most} open sessions, as many as one user may have")]
    UserSessions {
        /// The user.
        uid: u32,
        /// How many one user may have.
        most: u64,
    },
    /// Reading or writing a file failed.
    #[error("the disk does not answer as it should: {0}")]
    Io(#[source] Reason),
    /// SQLite found damage; the store is rebuilt.
    #[error("the store is damaged: {0}")]
    Damaged(#[source] Reason),
    /// SQLite refused a statement for a reason that no input should cause.
    #[error("{0}")]
    Bug(#[source] Reason),
}

impl StoreError {
    /// Whether the same request may succeed later, with nothing changed in it.
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Busy
                | Self::Held(_)
                | Self::CheckGivenUp
                | Self::Full(_)
                | Self::UserFull { .. }
                | Self::UserSessions { .. }
                | Self::Io(_)
                | Self::Damaged(_)
        )
    }
}

/// SQLite's result codes, each sorted once, here.
impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        // Before anything else is called that could change it.
        let cause = io::Error::last_os_error();
        let text = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::SystemIoFailure) if is_write(&error) && disk::is_full(&cause) => {
                Self::Full(Reason::from(format!("{text}: {cause}")).caused_by(error))
            }
            Some(ErrorCode::DiskFull) => Self::Full(Reason::from(text).caused_by(error)),
            Some(
                ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied,
            ) => Self::Io(Reason::from(text).caused_by(error)),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged(Reason::from(text).caused_by(error))
            }
            Some(ErrorCode::DatabaseBusy) => Self::Held(None),
            Some(ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::OperationInterrupted) => Self::CheckGivenUp,
            _ => Self::Bug(Reason::from(text).caused_by(error)),
        }
    }
}

/// Whether what failed was writing a file or making it longer. Of a full disk SQLite recognises only ENOSPC in a
/// write; a quota or a file size limit is known only from errno.
fn is_write(error: &rusqlite::Error) -> bool {
    let rusqlite::Error::SqliteFailure(failure, _) = error else { return false };
    matches!(
        failure.extended_code,
        ffi::SQLITE_IOERR_WRITE
            | ffi::SQLITE_IOERR_FSYNC
            | ffi::SQLITE_IOERR_DIR_FSYNC
            | ffi::SQLITE_IOERR_TRUNCATE
            | ffi::SQLITE_IOERR_SHMSIZE
            | ffi::SQLITE_IOERR_SHMOPEN
            | ffi::SQLITE_IOERR_SHMMAP
    )
}

impl StoreError {
    /// A file of the store could not be read or written.
    pub(super) fn of_file(error: io::Error) -> Self {
        let (is_full, reason) = (disk::is_full(&error), Reason::from(error.to_string()).caused_by(error));
        if is_full { Self::Full(reason) } else { Self::Io(reason) }
    }
}

/// Why the state folder cannot be used; the daemon stops before it serves anyone.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another daemon holds the lock.
    #[error("another sessiond already uses the state folder {dir}{}", .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    InUse {
        /// The state folder.
        dir: String,
        /// The other daemon's process, if it can be found out.
        pid: Option<u32>,
    },
    /// The database was made by a newer version.
    #[error("the store {path} has schema {found}, this sessiond knows only up to {known}; it is left untouched")]
    Newer {
        /// The database's file.
        path: String,
        /// Its schema.
        found: i64,
        /// The newest schema of this version.
        known: i64,
    },
    /// The folder is another user's.
    #[error("the state folder {dir} belongs to user {owner}, and this is user {user}")]
    ForeignFolder {
        /// The state folder.
        dir: String,
        /// The user id of its owner.
        owner: u32,
        /// The user id of this process.
        user: u32,
    },
    /// The folder cannot be made or opened.
    #[error("the state folder {dir} cannot be used: {source}")]
    Folder {
        /// The state folder.
        dir: String,
        /// What failed.
        source: io::Error,
    },
    /// The linked SQLite is too old.
    #[error("SQLite {found} is linked; versions before 3.51.3 can lose committed writes")]
    OldSqlite {
        /// Its version.
        found: &'static str,
    },
    /// The identity's file is damaged. It is never guessed.
    #[error("{path} cannot be read as a pinned identity: {why}")]
    Pin {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The database cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}
