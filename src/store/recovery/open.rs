//! Opening the state folder: lock, check, upgrade; and replacing a damaged store.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, TransactionBehavior};

use crate::domain::Timestamp;
use crate::platform::files::{WriteDurability, write_atomically};
use crate::store::error::{OpenError, StoreError};
use crate::store::recovery::integrity::Check;
use crate::store::recovery::wal_repair::LogCondition;
use crate::store::recovery::{copies, salvage, wal_repair};
use crate::store::sqlite::connection;
use crate::store::sqlite::connection::{DATABASE, DatabaseFiles, Durability};

/// A finished copy of a damaged database; its date follows.
const SALVAGED: &str = "sessiond.db.salvaged-";

/// Follows the database's name in that of a damaged file that was set aside; the date comes next.
const DAMAGED: &str = ".damaged-";

/// Follows the database's name in that of a log whose last transaction cannot be read. There is one such copy.
const CUT_OFF: &str = ".cut-off-wal";

/// The largest database that is read as a whole before the daemon serves, in bytes: half a second from a cold disk.
const CHECKED_AT_START: u64 = 32 << 20;

/// Older versions can lose committed writes when the write-ahead log is reset.
const OLDEST_SQLITE: i32 = 3_051_003;

/// Each is applied once, in order; `user_version` counts them. They are frozen once released.
pub(in crate::store) const MIGRATIONS: [&str; 19] = [
    include_str!("../../../migrations/local/0001_sessions.sql"),
    include_str!("../../../migrations/local/0002_mirror_and_history.sql"),
    include_str!("../../../migrations/local/0003_agents.sql"),
    include_str!("../../../migrations/local/0004_aliases_in_order.sql"),
    include_str!("../../../migrations/local/0005_agent_processes.sql"),
    include_str!("../../../migrations/local/0006_parked_retries.sql"),
    include_str!("../../../migrations/local/0007_mirror_readings.sql"),
    include_str!("../../../migrations/local/0008_idempotency_keys.sql"),
    include_str!("../../../migrations/local/0009_columns.sql"),
    include_str!("../../../migrations/local/0010_user_usage.sql"),
    include_str!("../../../migrations/local/0011_unsynced_records_of_session.sql"),
    include_str!("../../../migrations/local/0012_names.sql"),
    include_str!("../../../migrations/local/0013_session_work.sql"),
    include_str!("../../../migrations/local/0014_places.sql"),
    include_str!("../../../migrations/local/0015_rate_limits.sql"),
    include_str!("../../../migrations/local/0016_activity_changes.sql"),
    include_str!("../../../migrations/local/0017_vouching.sql"),
    include_str!("../../../migrations/local/0018_notified.sql"),
    include_str!("../../../migrations/local/0019_on_demand.sql"),
];

impl DatabaseFiles {
    /// Opens the database for writing, upgraded to this binary's schema. One in which `check` finds damage is set
    /// aside and what can be read of it is carried over.
    pub(in crate::store) fn open(&self, now: Timestamp, check: &Check) -> Result<Connection, OpenError> {
        self.open_or_salvage(now, check).map_err(|error| match error {
            OpenError::Store(error) => OpenError::Store(self.name_holder(error)),
            other => other,
        })
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
        let Ok(verdict) = wal_repair::examine_file(&log) else { return Ok(()) };
        match verdict {
            LogCondition::Sound => Ok(()),
            LogCondition::CutOff => {
                tracing::warn!(
                    copy = %self.beside(CUT_OFF).display(),
                    "the last change in the store's log cannot be read: it was cut off before it was acknowledged, or \
                     is damaged"
                );
                copies::copy(&log, &self.beside(CUT_OFF)).map(|_| ())
            }
            LogCondition::Damaged { repaired, exact } => {
                let outcome = if exact { "nothing is lost" } else { "what can be read of it is taken over" };
                tracing::error!("the store's log is damaged; {outcome}");
                self.copy_aside(now)?;
                self.write_whole(&log, &repaired)
            }
        }
    }

    /// How much is checked before the daemon serves: a database that takes long to read is checked while it serves.
    pub(in crate::store) fn check_at_start(&self) -> Check {
        if self.size("") + self.size("-wal") > CHECKED_AT_START { Check::Nothing } else { Check::Structure }
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
    pub(in crate::store) fn quarantined(&self) -> Option<String> {
        let names = fs::read_dir(&self.dir).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let prefix = format!("{DATABASE}{DAMAGED}");
        names.filter(|name| name.starts_with(&prefix) && name.ends_with('Z')).max()
    }

    /// Replaces a file's content atomically and durably.
    fn write_whole(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        write_atomically(path, bytes, 0o600, WriteDurability::ContentAndName).map_err(StoreError::of_file)
    }

    fn open_sound(&self, check: &Check) -> Result<Connection, OpenError> {
        self.prepare(self.connect(&self.database())?, check)
    }

    /// Brings a database up to this binary's schema, sets it up and looks it over.
    pub(in crate::store) fn prepare(&self, mut connection: Connection, check: &Check) -> Result<Connection, OpenError> {
        self.upgrade(&mut connection)?;
        // Only once the schema is known to be ours: setting these writes to the file.
        self.configure(&connection)?;
        check.run(&connection)?;
        Ok(connection)
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
        connection::sync_folder(&self.dir).map_err(StoreError::of_file)?;
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
        connection::sync_folder(&self.dir).map_err(StoreError::of_file)?;
        fs::rename(salvaged, self.database()).map_err(StoreError::of_file)?;
        connection::sync_folder(&self.dir).map_err(StoreError::of_file)?;
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

/// A timestamp as part of a file's name.
fn dated(at: Timestamp) -> String {
    at.to_string().replace([':', '-'], "")
}

pub(in crate::store) fn remove(path: &Path) -> Result<(), StoreError> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let file = PathBuf::from(format!("{}{suffix}", path.display()));
        if file.exists() {
            fs::remove_file(&file).map_err(StoreError::of_file)?;
        }
    }
    Ok(())
}
