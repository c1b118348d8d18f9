//! Opening the state folder: lock, check, upgrade; and replacing a damaged store.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::check::Check;
use super::wal::{self, Verdict};
use super::{Durability, OpenError, Options, StoreError};
use super::{copies, salvage};
use crate::domain::Timestamp;
use crate::platform::files;
use crate::platform::lock_holder;

const DATABASE: &str = "sessiond.db";
/// A finished copy of a damaged database; its date follows.
const SALVAGED: &str = "sessiond.db.salvaged-";
/// Follows the database's name in that of a damaged file that was set aside; the date comes next.
const DAMAGED: &str = ".damaged-";
/// Follows the database's name in that of a log whose last transaction cannot be read. There is one such copy.
const CUT_OFF: &str = ".cut-off-wal";
/// Holds the flock for the daemon's life, and its pid for whoever finds it locked.
const LOCK: &str = "lock";

/// How long a lock of another program is waited for. All who write wait meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);

/// The log's usual length, in bytes: SQLite begins it anew after the transaction that fills a thousand pages.
const LOG: usize = 4_500_000;
/// The log is made to begin anew once it is longer, in bytes. SQLite does so by itself only in a moment without
/// readers.
const LONG_LOG: u64 = 16 << 20;
/// The largest database that is read as a whole before the daemon serves, in bytes: half a second from a cold disk.
const CHECKED_AT_START: u64 = 32 << 20;

/// Older versions can lose committed writes when the write-ahead log is reset.
const OLDEST_SQLITE: i32 = 3_051_003;

/// Each is applied once, in order; `user_version` counts them. They are frozen once released.
pub(super) const MIGRATIONS: [&str; 10] = [
    include_str!("../../migrations/local/0001_sessions.sql"),
    include_str!("../../migrations/local/0002_mirror_and_history.sql"),
    include_str!("../../migrations/local/0003_agents.sql"),
    include_str!("../../migrations/local/0004_aliases_in_order.sql"),
    include_str!("../../migrations/local/0005_agent_processes.sql"),
    include_str!("../../migrations/local/0006_parked_retries.sql"),
    include_str!("../../migrations/local/0007_mirror_readings.sql"),
    include_str!("../../migrations/local/0008_idempotency_keys.sql"),
    include_str!("../../migrations/local/0009_columns.sql"),
    include_str!("../../migrations/local/0010_user_usage.sql"),
];

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
        if let Ok(found) = fs::metadata(dir) {
            refuse_foreign(dir, &found)?;
        }
        make(dir).map_err(folder)?;
        files::make_private_folder(dir).and_then(|()| files::make_files_private(dir)).map_err(folder)?;
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

/// Files that another user than the folder's owner makes would keep the owner out. That holds for root, too: as when
/// `sudo` keeps HOME.
fn refuse_foreign(dir: &Path, found: &fs::Metadata) -> Result<(), OpenError> {
    let (owner, user) = (found.uid(), rustix::process::geteuid().as_raw());
    if owner == user {
        return Ok(());
    }
    Err(OpenError::ForeignFolder { dir: dir.display().to_string(), owner, user })
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

    /// Opens the database for writing, upgraded to this binary's schema. One in which `check` finds damage is set
    /// aside and what can be read of it is carried over.
    pub fn open(&self, now: Timestamp, check: &Check) -> Result<Connection, OpenError> {
        self.open_or_salvage(now, check).map_err(|error| match error {
            OpenError::Store(error) => OpenError::Store(self.name_holder(error)),
            other => other,
        })
    }

    /// Adds to "held by another program" which program that is, where the system gives it.
    pub fn name_holder(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Held(None) => {
                StoreError::Held(lock_holder::find(&[&self.beside("-shm"), &self.database(), &self.beside("-wal")]))
            }
            other => other,
        }
    }

    fn open_or_salvage(&self, now: Timestamp, check: &Check) -> Result<Connection, OpenError> {
        if rusqlite::version_number() < OLDEST_SQLITE {
            return Err(OpenError::OldSqlite { found: rusqlite::version() });
        }
        self.finish_salvage()?;
        // With less durability a power cut may leave any of the log unwritten, which is no damage.
        if self.options.durability == Durability::Full {
            self.check_log(now)?;
        }
        self.sync_log()?;
        match self.open_sound(check) {
            Err(OpenError::Store(StoreError::Damaged(why))) => self.salvage(&why, now),
            other => other,
        }
    }

    fn salvage(&self, why: &str, now: Timestamp) -> Result<Connection, OpenError> {
        tracing::error!(why, "the store is damaged; it is set aside and what can be read is carried over");
        self.replace_damaged(now)?;
        self.open_sound(&Check::Structure)
    }

    /// Looks for damage in the log that a crash left, which SQLite would take for the log's end, and mends it.
    fn check_log(&self, now: Timestamp) -> Result<(), StoreError> {
        let log = self.beside("-wal");
        let Ok(verdict) = wal::examine_file(&log) else { return Ok(()) };
        match verdict {
            Verdict::Sound => Ok(()),
            Verdict::CutOff => {
                tracing::warn!(
                    copy = %self.beside(CUT_OFF).display(),
                    "the last change in the store's log cannot be read: it was cut off before it was acknowledged, or \
                     is damaged"
                );
                copies::copy(&log, &self.beside(CUT_OFF)).map(|_| ())
            }
            Verdict::Damaged { mended, exact } => {
                let outcome = if exact { "nothing is lost" } else { "what can be read of it is taken over" };
                tracing::error!("the store's log is damaged; {outcome}");
                self.copy_aside(now)?;
                self.write_whole(&log, &mended)
            }
        }
    }

    /// How much is checked before the daemon serves: a database that takes long to read is checked while it serves.
    pub fn check_at_start(&self) -> Check {
        if self.size("") + self.size("-wal") > CHECKED_AT_START { Check::Nothing } else { Check::Structure }
    }

    /// SQLite's write-ahead log.
    pub fn log(&self) -> PathBuf {
        self.beside("-wal")
    }

    /// Whether the log is so much longer than usual that readers must be keeping SQLite from beginning it anew.
    pub fn log_is_long(&self) -> bool {
        self.size("-wal") > LONG_LOG
    }

    /// The length of the database, or of a file beside it, in bytes.
    pub fn size(&self, suffix: &str) -> u64 {
        fs::metadata(self.beside(suffix)).map_or(0, |file| file.len())
    }

    /// Copies the log into the database, as far as a checkpoint of this mode does.
    pub fn fold_log(&self, mode: &str) -> Result<(), StoreError> {
        let connection = self.connect(&self.database()).map_err(|error| match error {
            OpenError::Store(error) => error,
            other => StoreError::Io(other.to_string()),
        })?;
        connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))?;
        Ok(())
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        self.dir.join(format!("{DATABASE}{suffix}"))
    }

    /// Keeps copies of the damaged files under a dated name, unless the same damage has been copied before.
    fn copy_aside(&self, now: Timestamp) -> Result<(), StoreError> {
        if copies::is_kept(&self.beside("-wal"), &self.dated_copies("-wal")) {
            return Ok(());
        }
        for suffix in ["", "-wal"] {
            copies::remove_older(self.dated_copies(suffix), copies::OLDER_KEPT);
            let aside = self.aside(&dated(now), suffix);
            if copies::copy(&self.beside(suffix), &aside)? {
                tracing::warn!(aside = %aside.display(), "kept a copy of the damaged store");
            }
        }
        Ok(())
    }

    /// The damaged files of this kind that lie there under a date.
    fn dated_copies(&self, suffix: &str) -> Vec<PathBuf> {
        let prefix = format!("{DATABASE}{DAMAGED}");
        let is_of_kind = |name: &str| {
            name.strip_prefix(&prefix)
                .and_then(|rest| rest.strip_suffix(suffix))
                .is_some_and(|date| date.ends_with('Z'))
        };
        let names = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        names
            .map(|entry| entry.path())
            .filter(|path| path.file_name().and_then(|n| n.to_str()).is_some_and(is_of_kind))
            .collect()
    }

    fn aside(&self, date: &str, suffix: &str) -> PathBuf {
        self.beside(&format!("{DAMAGED}{date}{suffix}"))
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
        written.and_then(|()| fs::rename(&draft, path)).map_err(StoreError::of_file)?;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(StoreError::of_file)
    }

    /// A connection that can only read.
    pub fn open_reader(&self) -> Result<Connection, StoreError> {
        let connection = Connection::open_with_flags(
            self.database(),
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI,
        )?;
        connection.busy_timeout(PATIENCE)?;
        connection.set_prepared_statement_cache_capacity(32);
        Ok(connection)
    }

    /// What a daemon that crashed had written but not synced is read, and told to others, from here on.
    fn sync_log(&self) -> Result<(), StoreError> {
        match File::open(self.dir.join(format!("{DATABASE}-wal"))) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            log => log.and_then(|log| log.sync_all()).map_err(StoreError::of_file)?,
        }
        sync_folder(&self.dir).map_err(StoreError::of_file)
    }

    /// Makes the log as long as it becomes before SQLite begins it anew. A commit into a log that has to grow costs the
    /// file system a commit of its own; zeros behind the newest frame are what SQLite takes for its end anyway.
    ///
    /// To be called by whoever alone writes.
    pub fn lengthen_log(&self) -> Result<(), StoreError> {
        let mut log = File::options().append(true).open(self.beside("-wal")).map_err(StoreError::of_file)?;
        let length = log.metadata().map_err(StoreError::of_file)?.len() as usize;
        log.write_all(&vec![0; LOG.saturating_sub(length)]).map_err(StoreError::of_file)?;
        log.sync_all().map_err(StoreError::of_file)
    }

    fn open_sound(&self, check: &Check) -> Result<Connection, OpenError> {
        self.prepare(self.connect(&self.database())?, check)
    }

    /// Brings a database up to this binary's schema, sets it up and looks it over.
    pub fn prepare(&self, mut connection: Connection, check: &Check) -> Result<Connection, OpenError> {
        self.upgrade(&mut connection)?;
        // Only once the schema is known to be ours: setting these writes to the file.
        self.configure(&connection)?;
        check.run(&connection)?;
        Ok(connection)
    }

    fn connect(&self, path: &Path) -> Result<Connection, OpenError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(PATIENCE)?;
        connection.set_prepared_statement_cache_capacity(64);
        // Closing a database that turns out to be damaged must not change it.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        // On macOS fsync alone leaves the data in the drive's cache. What migrations and checkpoints
        // write must be on the disk whatever the durability: there, order is what keeps the store whole.
        connection.pragma_update(None, "fullfsync", true)?;
        connection.pragma_update(None, "checkpoint_fullfsync", true)?;
        Ok(connection)
    }

    fn configure(&self, connection: &Connection) -> Result<(), StoreError> {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        let synchronous = match self.options.durability {
            Durability::Full => "FULL",
            Durability::Normal => "NORMAL",
        };
        connection.pragma_update(None, "synchronous", synchronous)?;
        connection.pragma_update(None, "fullfsync", self.options.durability == Durability::Full)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        // A log that was long gives its room back when it is begun anew.
        connection.pragma_update(None, "journal_size_limit", LOG as i64)?;
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
    fn replace_damaged(&self, now: Timestamp) -> Result<(), OpenError> {
        let building = self.dir.join("sessiond.db.salvaging");
        remove(&building)?;
        let mut copy = self.connect(&building)?;
        self.upgrade(&mut copy)?;
        let carried = salvage::carry_over(&self.connect(&self.database())?, &mut copy, now)?;
        copy.close().map_err(|(_, error)| StoreError::from(error))?;
        File::open(&building).and_then(|f| f.sync_all()).map_err(StoreError::of_file)?;
        // From here on a crash is finished by the next start.
        fs::rename(&building, self.salvaged(now)).map_err(StoreError::of_file)?;
        sync_folder(&self.dir).map_err(StoreError::of_file)?;
        tracing::warn!(sessions = carried.sessions, lost = carried.unreadable, "carried over from the damaged store");
        self.finish_salvage()
    }

    /// Sets the damaged files aside under the salvaged copy's date and moves that into their place.
    fn finish_salvage(&self) -> Result<(), OpenError> {
        let Some((salvaged, date)) = self.find_salvaged()? else { return Ok(()) };
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let damaged = self.beside(suffix);
            if damaged.exists() {
                let aside = self.aside(&date, suffix);
                fs::rename(&damaged, &aside).map_err(StoreError::of_file)?;
                tracing::warn!(aside = %aside.display(), "set the damaged store aside");
            }
        }
        // SQLite would play the damaged log into the copy, should a power cut leave the one beside the other.
        sync_folder(&self.dir).map_err(StoreError::of_file)?;
        fs::rename(salvaged, self.database()).map_err(StoreError::of_file)?;
        sync_folder(&self.dir).map_err(StoreError::of_file)?;
        Ok(())
    }

    /// The date is part of the name, so that all the damaged files get one date, even from two starts.
    fn salvaged(&self, at: Timestamp) -> PathBuf {
        self.dir.join(format!("{SALVAGED}{}", dated(at)))
    }

    /// A finished copy that is not yet in its place, and its date.
    fn find_salvaged(&self) -> Result<Option<(PathBuf, String)>, StoreError> {
        for entry in fs::read_dir(&self.dir).map_err(StoreError::of_file)? {
            let entry = entry.map_err(StoreError::of_file)?;
            if let Some(date) = entry.file_name().to_str().and_then(|name| name.strip_prefix(SALVAGED)) {
                return Ok(Some((entry.path(), date.to_owned())));
            }
        }
        Ok(None)
    }
}

/// A moment as part of a file's name.
fn dated(at: Timestamp) -> String {
    at.to_string().replace([':', '-'], "")
}

/// Makes a folder, and those above it, so that a power cut does not take them away again. One that is
/// there may have been made a moment ago and not been synced.
fn make(dir: &Path) -> std::io::Result<()> {
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !dir.is_dir() {
        make(parent)?;
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.is_dir() => {}
            made => made?,
        }
    }
    match sync_folder(parent) {
        Err(error) if cannot_be_synced(error.kind()) => Ok(()),
        synced => synced,
    }
}

/// A folder that may not be read, or on which nothing can be written anyway, is not for this daemon to sync.
fn cannot_be_synced(why: ErrorKind) -> bool {
    matches!(
        why,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::InvalidInput | ErrorKind::Unsupported
    )
}

fn sync_folder(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

fn remove(path: &Path) -> Result<(), StoreError> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let file = PathBuf::from(format!("{}{suffix}", path.display()));
        if file.exists() {
            fs::remove_file(&file).map_err(StoreError::of_file)?;
        }
    }
    Ok(())
}
