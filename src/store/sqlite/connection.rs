//! The database's files, and how connections to it are made.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::domain::Reason;
use crate::platform::lock_holder;
use crate::store::error::{OpenError, StoreError};

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// A power cut.
    #[default]
    Full,
    /// A crash of the daemon.
    Normal,
}

impl Durability {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Normal => "normal",
        }
    }
}

/// How the database is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether a commit waits for the disk.
    pub durability: Durability,
    /// The database may not grow beyond this many bytes.
    pub max_size: u64,
}

pub(in crate::store) const DATABASE: &str = "sessiond.db";

/// How long a lock of another program is waited for. All who write wait meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);

/// The log's usual length, in bytes: SQLite restarts it after the transaction that fills a thousand pages.
const LOG: usize = 4_500_000;

/// The log is restarted once it is longer, in bytes. SQLite does so by itself only while there are no
/// readers.
const LONG_LOG: u64 = 16 << 20;

/// The database's files, and how connections to it are made.
#[derive(Clone, Debug)]
pub(in crate::store) struct DatabaseFiles {
    pub(in crate::store) dir: PathBuf,
    pub(in crate::store) options: Options,
}

impl DatabaseFiles {
    pub(in crate::store) fn new(dir: &Path, options: Options) -> Self {
        Self { dir: dir.to_owned(), options }
    }

    pub(in crate::store) fn database(&self) -> PathBuf {
        self.dir.join(DATABASE)
    }

    /// Adds to "held by another program" which program that is, where the system gives it.
    pub(in crate::store) fn name_holder(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Held(None) => {
                StoreError::Held(lock_holder::find(&[&self.beside("-shm"), &self.database(), &self.beside("-wal")]))
            }
            other => other,
        }
    }

    /// SQLite's write-ahead log.
    pub(in crate::store) fn log(&self) -> PathBuf {
        self.beside("-wal")
    }

    /// Whether the log is so much longer than usual that readers must be keeping SQLite from restarting it.
    pub(in crate::store) fn log_is_long(&self) -> bool {
        self.size("-wal") > LONG_LOG
    }

    /// The length of the database, or of a file beside it, in bytes.
    pub(in crate::store) fn size(&self, suffix: &str) -> u64 {
        fs::metadata(self.beside(suffix)).map_or(0, |file| file.len())
    }

    /// Copies the log into the database, as far as a checkpoint of this mode does.
    pub(in crate::store) fn fold_log(&self, mode: &str) -> Result<(), StoreError> {
        let connection = self.connect(&self.database()).map_err(|error| match error {
            OpenError::Store(error) => error,
            other => StoreError::Io(Reason::from(other.to_string()).caused_by(other)),
        })?;
        connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))?;
        Ok(())
    }

    pub(in crate::store) fn beside(&self, suffix: &str) -> PathBuf {
        self.dir.join(format!("{DATABASE}{suffix}"))
    }

    /// A connection that can only read.
    pub(in crate::store) fn open_reader(&self) -> Result<Connection, StoreError> {
        let connection = Connection::open_with_flags(
            self.database(),
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI,
        )?;
        connection.busy_timeout(PATIENCE)?;
        prepare_once(&connection, 32)?;
        Ok(connection)
    }

    /// Syncs what a daemon that crashed had written but not synced: from here on it is read and pushed.
    pub(in crate::store) fn sync_log(&self) -> Result<(), StoreError> {
        match File::open(self.dir.join(format!("{DATABASE}-wal"))) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            log => log.and_then(|log| log.sync_all()).map_err(StoreError::of_file)?,
        }
        sync_folder(&self.dir).map_err(StoreError::of_file)
    }

    /// Makes the log as long as it becomes before SQLite restarts it. A commit into a log that has to grow costs the
    /// file system a commit of its own; zeros behind the newest frame are what SQLite takes for its end anyway.
    ///
    /// To be called by the writer only.
    pub(in crate::store) fn lengthen_log(&self) -> Result<(), StoreError> {
        let mut log = File::options().append(true).open(self.beside("-wal")).map_err(StoreError::of_file)?;
        let length = log.metadata().map_err(StoreError::of_file)?.len() as usize;
        log.write_all(&vec![0; LOG.saturating_sub(length)]).map_err(StoreError::of_file)?;
        log.sync_all().map_err(StoreError::of_file)
    }

    pub(in crate::store) fn connect(&self, path: &Path) -> Result<Connection, OpenError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(PATIENCE)?;
        prepare_once(&connection, 64)?;
        // Closing a database that turns out to be damaged must not change it.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        // On macOS fsync alone leaves the data in the drive's cache. What migrations and checkpoints
        // write must be on the disk at any durability: there, order is what keeps the store whole.
        connection.pragma_update(None, "fullfsync", true)?;
        connection.pragma_update(None, "checkpoint_fullfsync", true)?;
        Ok(connection)
    }

    pub(in crate::store) fn configure(&self, connection: &Connection) -> Result<(), StoreError> {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        let synchronous = match self.options.durability {
            Durability::Full => "FULL",
            Durability::Normal => "NORMAL",
        };
        connection.pragma_update(None, "synchronous", synchronous)?;
        connection.pragma_update(None, "fullfsync", self.options.durability == Durability::Full)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        // A log that was long gives its room back when it is restarted.
        connection.pragma_update(None, "journal_size_limit", LOG as i64)?;
        let page: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        let max_size = i64::try_from(self.options.max_size).unwrap_or(i64::MAX);
        connection.pragma_update(None, "max_page_count", max_size / page.max(1))?;
        Ok(())
    }
}

/// Keeps so many prepared statements. Without the second setting SQLite plans a statement anew whenever a bound value
/// that its plan may depend on changes, which is most executions of a statement with `LIMIT ?`: three times the work of the
/// statement itself.
pub(in crate::store) fn prepare_once(connection: &Connection, statements: usize) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(statements);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

pub(in crate::store) fn sync_folder(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}
