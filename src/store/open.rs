//! Opening the state folder: lock, check, upgrade; and replacing a damaged store.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::salvage;
use super::wal::{self, Verdict};
use super::{Durability, OpenError, Options, StoreError};
use crate::domain::Timestamp;

const DATABASE: &str = "sessiond.db";
/// Follows the database's name in that of a damaged file that was set aside; the date comes next.
const DAMAGED: &str = ".damaged-";
/// Holds the flock for the daemon's life, and its pid for whoever finds it locked.
const LOCK: &str = "lock";

/// Older versions can lose committed writes when the write-ahead log is reset.
const OLDEST_SQLITE: i32 = 3_051_003;

/// Each is applied once, in order; `user_version` counts them. They are frozen once released.
const MIGRATIONS: [&str; 1] = [include_str!("../../migrations/local/0001_sessions.sql")];

/// The exclusive use of a state folder.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Makes the folder if it is missing, and locks it against other daemons.
    ///
    /// # Errors
    /// `InUse` when another process holds it, `Folder` when it cannot be made or written.
    pub fn take(dir: &Path) -> Result<Self, OpenError> {
        let folder = |source| OpenError::Folder { dir: dir.display().to_string(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(folder)?;
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(dir.join(LOCK))
            .map_err(folder)?;
        if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            return Err(OpenError::InUse { dir: dir.display().to_string(), pid: pid.trim().parse().ok() });
        }
        // The pid only informs: the lock itself is what counts, so a stale pid harms nobody.
        let noted = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
        noted.map_err(folder)?;
        Ok(Self { _file: file })
    }
}

/// The database's files, and how connections to it are made.
#[derive(Clone, Debug)]
pub(super) struct Files {
    dir: PathBuf,
    options: Options,
}

impl Files {
    pub fn new(dir: &Path, options: Options) -> Self {
        Self { dir: dir.to_owned(), options }
    }

    pub fn database(&self) -> PathBuf {
        self.dir.join(DATABASE)
    }

    fn salvaged(&self) -> PathBuf {
        self.dir.join("sessiond.db.salvaged")
    }

    /// Opens the database for writing, upgraded to this binary's schema. A damaged one is set aside
    /// and what can be read of it is carried over.
    pub fn open(&self, now: Timestamp) -> Result<Connection, OpenError> {
        if rusqlite::version_number() < OLDEST_SQLITE {
            return Err(OpenError::OldSqlite { found: rusqlite::version() });
        }
        self.finish_salvage(now)?;
        // With less durability a power cut may leave any of the log unwritten, which is no damage.
        if self.options.durability == Durability::Full {
            self.check_log(now)?;
        }
        match self.open_sound() {
            Err(OpenError::Store(StoreError::Damaged(why))) => {
                tracing::error!(why, "the store is damaged; it is set aside and what can be read is carried over");
                self.replace_damaged(now)?;
                self.open_sound()
            }
            other => other,
        }
    }

    /// Looks for damage in the log that a crash left, which SQLite would take for the log's end, and mends it.
    fn check_log(&self, now: Timestamp) -> Result<(), StoreError> {
        let log = self.beside("-wal");
        let Ok(bytes) = fs::read(&log) else { return Ok(()) };
        match wal::examine(bytes) {
            Verdict::Sound => Ok(()),
            Verdict::CutOff => {
                tracing::warn!(
                    "the last change in the store's log cannot be read: cut off by a power cut before anybody was \
                     told of it, or damaged; a copy is kept"
                );
                self.copy_aside(now)
            }
            Verdict::Damaged { mended, exact } => {
                let outcome = if exact { "nothing is lost" } else { "what can be read of it is taken over" };
                tracing::error!("the store's log is damaged; {outcome}, and a copy of the damaged files is kept");
                self.copy_aside(now)?;
                self.write_whole(&log, &mended)
            }
        }
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        self.dir.join(format!("{DATABASE}{suffix}"))
    }

    /// Keeps copies of the damaged files under a dated name.
    fn copy_aside(&self, now: Timestamp) -> Result<(), StoreError> {
        for suffix in ["", "-wal"] {
            let aside = self.aside(now, suffix);
            fs::copy(self.beside(suffix), &aside).map_err(full_or_io)?;
            tracing::warn!(aside = %aside.display(), "kept a copy of the damaged store");
        }
        Ok(())
    }

    fn aside(&self, now: Timestamp, suffix: &str) -> PathBuf {
        self.beside(&format!("{DAMAGED}{}{suffix}", now.to_string().replace([':', '-'], "")))
    }

    /// The newest damaged file that was set aside and still lies there.
    pub fn set_aside(&self) -> Option<String> {
        let names = fs::read_dir(&self.dir).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let prefix = format!("{DATABASE}{DAMAGED}");
        names.filter(|name| name.starts_with(&prefix) && name.ends_with('Z')).max()
    }

    /// Replaces a file by these bytes, all of them or none.
    fn write_whole(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let draft = self.beside("-wal.mended");
        let written = File::create(&draft).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
        written.and_then(|()| fs::rename(&draft, path)).map_err(full_or_io)?;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(full_or_io)
    }

    /// A connection that can only read.
    pub fn open_reader(&self) -> Result<Connection, StoreError> {
        let connection = Connection::open_with_flags(
            self.database(),
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI,
        )?;
        connection.busy_timeout(std::time::Duration::from_secs(1))?;
        connection.set_prepared_statement_cache_capacity(32);
        Ok(connection)
    }

    fn open_sound(&self) -> Result<Connection, OpenError> {
        let mut connection = self.connect(&self.database())?;
        self.upgrade(&mut connection)?;
        // Only once the schema is known to be ours: setting these writes to the file.
        self.configure(&connection)?;
        // The quick check passes over indexes that disagree with their table, by which rows cannot be found.
        let verdict: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(StoreError::Damaged(verdict).into());
        }
        Ok(connection)
    }

    fn connect(&self, path: &Path) -> Result<Connection, OpenError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        connection.set_prepared_statement_cache_capacity(64);
        // Closing a database that turns out to be damaged must not change it.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        Ok(connection)
    }

    fn configure(&self, connection: &Connection) -> Result<(), StoreError> {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        let synchronous = match self.options.durability {
            Durability::Full => "FULL",
            Durability::Normal => "NORMAL",
        };
        connection.pragma_update(None, "synchronous", synchronous)?;
        // On macOS fsync alone leaves the data in the drive's cache.
        connection.pragma_update(None, "fullfsync", self.options.durability == Durability::Full)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        let page: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        let max_size = i64::try_from(self.options.max_size).unwrap_or(i64::MAX);
        connection.pragma_update(None, "max_page_count", max_size / page.max(1))?;
        Ok(())
    }

    /// Applies the migrations that are missing, all in one transaction.
    fn upgrade(&self, connection: &mut Connection) -> Result<(), OpenError> {
        let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let known = MIGRATIONS.len() as i64;
        if found > known {
            return Err(OpenError::Newer { path: self.database().display().to_string(), found, known });
        }
        if found == known {
            return Ok(());
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for migration in &MIGRATIONS[usize::try_from(found).unwrap_or(0)..] {
            transaction.execute_batch(migration)?;
        }
        transaction.pragma_update(None, "user_version", known)?;
        transaction.commit()?;
        Ok(())
    }

    /// Puts what can be read of the damaged database in its place, and the damaged one aside.
    pub fn replace_damaged(&self, now: Timestamp) -> Result<(), OpenError> {
        let building = self.dir.join("sessiond.db.salvaging");
        remove(&building)?;
        let mut copy = self.connect(&building)?;
        self.upgrade(&mut copy)?;
        let carried = salvage::carry_over(self.connect(&self.database()), &copy, now);
        copy.close().map_err(|(_, error)| StoreError::from(error))?;
        let io = |e: std::io::Error| StoreError::Io(e.to_string());
        File::open(&building).and_then(|f| f.sync_all()).map_err(io)?;
        // From here on a crash is finished by the next start.
        fs::rename(&building, self.salvaged()).map_err(io)?;
        tracing::warn!(sessions = carried.sessions, lost = carried.unreadable, "carried over from the damaged store");
        self.finish_salvage(now)
    }

    /// Sets the damaged files aside under a dated name and moves the salvaged copy into their place.
    fn finish_salvage(&self, now: Timestamp) -> Result<(), OpenError> {
        if !self.salvaged().exists() {
            return Ok(());
        }
        let io = |e: std::io::Error| StoreError::Io(e.to_string());
        for suffix in ["", "-wal", "-shm"] {
            let damaged = self.beside(suffix);
            if damaged.exists() {
                let aside = self.aside(now, suffix);
                fs::rename(&damaged, &aside).map_err(io)?;
                tracing::warn!(aside = %aside.display(), "set the damaged store aside");
            }
        }
        fs::rename(self.salvaged(), self.database()).map_err(io)?;
        File::open(&self.dir).and_then(|f| f.sync_all()).map_err(io)?;
        Ok(())
    }
}

fn full_or_io(error: std::io::Error) -> StoreError {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => StoreError::Full(error.to_string()),
        _ => StoreError::Io(error.to_string()),
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let file = PathBuf::from(format!("{}{suffix}", path.display()));
        if file.exists() {
            fs::remove_file(&file).map_err(|e| StoreError::Io(e.to_string()))?;
        }
    }
    Ok(())
}
