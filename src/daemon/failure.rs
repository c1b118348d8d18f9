//! Turns the errors of a start into one line with a hint and an error code, which determines the exit code.

use std::io;

use crate::config::ConfigError;
use crate::platform::disk;
use crate::store::{OpenError, StoreError};
use crate::wire::{ErrorCode, ErrorDetail};

use super::socket::SocketError;

pub(super) fn of_store(error: OpenError) -> ErrorDetail {
    let (code, hint) = match &error {
        OpenError::ForeignFolder { dir, owner, user } => {
            let hint = format!("run it as user {owner}, or `chown -R {user} {dir}`, or give another --state-dir");
            return ErrorDetail { code: ErrorCode::Forbidden, message: error.to_string(), hint };
        }
        OpenError::Folder { dir, source } if source.kind() == io::ErrorKind::PermissionDenied => {
            let user = rustix::process::geteuid().as_raw();
            let hint = format!("run `chown -R {user} {dir}` as root, or give another --state-dir");
            return ErrorDetail { code: ErrorCode::Forbidden, message: error.to_string(), hint };
        }
        _ => of_open(&error),
    };
    ErrorDetail { code, message: error.to_string(), hint: hint.into() }
}

fn of_open(error: &OpenError) -> (ErrorCode, &'static str) {
    match error {
        OpenError::InUse { .. } => {
            (ErrorCode::Unavailable, "stop that one first, or give this one its own --state-dir")
        }
        OpenError::Newer { .. } => (ErrorCode::Configuration, "run the newer sessiond that wrote it"),
        OpenError::ForeignFolder { .. } => (ErrorCode::Forbidden, "give another --state-dir"),
        OpenError::Folder { source, .. } => {
            (code_of(source), "make it writable for this user, or give another --state-dir")
        }
        OpenError::OldSqlite { .. } => {
            (ErrorCode::Configuration, "build sessiond with the SQLite that Cargo.lock pins")
        }
        OpenError::Pin { .. } => {
            (ErrorCode::Configuration, "restore it from a backup, or remove it and run `sessiond identity rename NAME`")
        }
        OpenError::Store(StoreError::Held(_)) => {
            (ErrorCode::Unavailable, "close that program, then start sessiond again")
        }
        OpenError::Store(StoreError::Full(_)) => (ErrorCode::DiskFull, "free some space, or raise the quota or limit"),
        OpenError::Store(_) => (ErrorCode::Unavailable, "check the disk of the state folder"),
    }
}

pub(super) fn of_socket(error: SocketError) -> ErrorDetail {
    let (code, hint) = match &error {
        SocketError::Served(_) => (ErrorCode::Unavailable, "stop that one first, or give this one its own --socket"),
        SocketError::NotASocket(_) => (ErrorCode::Configuration, "remove it, or give another --socket"),
        SocketError::Inherited(source) => (code_of(source), "correct ListenStream= in sessiond.socket"),
        SocketError::Io { source, .. } => (code_of(source), "give a --socket in a folder that this user may write"),
    };
    ErrorDetail { code, message: error.to_string(), hint: hint.into() }
}

pub(super) fn of_config(error: &ConfigError) -> ErrorDetail {
    ErrorDetail {
        code: ErrorCode::Configuration,
        message: error.to_string(),
        hint: "config.example.toml documents every key".into(),
    }
}

/// A part of the daemon ended by itself.
pub(super) fn of_part(part: &str) -> ErrorDetail {
    ErrorDetail {
        code: ErrorCode::Unavailable,
        message: format!("{part} has stopped, and sessiond with it; what was acknowledged is on disk"),
        hint: "read the log above, and start it again".into(),
    }
}

pub(super) fn of_io(what: &str, error: &io::Error) -> ErrorDetail {
    ErrorDetail {
        code: code_of(error),
        message: format!("{what}: {error}"),
        hint: "check the limits of this user and this machine".into(),
    }
}

fn code_of(error: &io::Error) -> ErrorCode {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorCode::Forbidden,
        _ if disk::is_full(error) => ErrorCode::DiskFull,
        _ => ErrorCode::Configuration,
    }
}
