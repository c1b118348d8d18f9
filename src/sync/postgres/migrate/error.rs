//! Why central's schema could not be brought up to date.

use sqlx::postgres::PgDatabaseError;

use super::super::errors::{classify, one_line, without_retry};
use crate::sync::central::{CentralError, Rejection};

/// An object that depends on a column so that Postgres refuses to change the column's type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// Its kind, name and table.
    pub object: String,
    /// The statement that removes it.
    pub remove: String,
    /// The statement that restores it afterwards.
    pub restore: String,
}

/// Why a migration was not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MigrateError {
    /// Central is a server that cannot be used, in one line.
    #[error("{0}")]
    Unsupported(String),
    /// The zone of naive times cannot be determined.
    #[error(
        "cannot determine in which time zone earlier clients wrote; give it, e.g. \
         `sessiond migrate --time-zone \"$(psql -Atc 'show timezone')\"`"
    )]
    ZoneUnknown,
    /// The roles that write sessions have different zones.
    #[error(
        "roles that write to central have different time zones ({0}), and the rows do not show which role wrote them; \
         give the zone of the rows: `sessiond migrate --time-zone ZONE`"
    )]
    ZonesDiffer(String),
    /// The default of a column names another zone than the one that clients write in.
    #[error(
        "{column} has the default {default}, which is a time in {named}, while clients write in {found}; choose the one that \
         its rows are in: `sessiond migrate --time-zone {column}={named}` or `--time-zone {column}={found}`"
    )]
    DefaultZone {
        /// The column.
        column: String,
        /// Its default.
        default: String,
        /// The zone that the default names.
        named: String,
        /// The zone of the rows.
        found: String,
    },
    /// A zone that was given does not exist.
    #[error("central knows no time zone \"{0}\"; give one of its pg_timezone_names, such as Europe/Berlin")]
    NoSuchZone(String),
    /// A column that was given does not exist, or has a zone; and which there are.
    #[error("--time-zone {0}: there is no such column without a time zone; {1}")]
    NoSuchColumn(String, String),
    /// The table of sessions lies in another schema than the one in which tables would be created.
    #[error(
        "central's supervisor_sessions lies in schema {found}, and new tables would be created in {first}, where a second one \
         would hide it; put schema {found} first: `ALTER ROLE NAME SET search_path = {found}`, for all roles that use it"
    )]
    OtherSchema {
        /// The schema of the table.
        found: String,
        /// The first schema of the search_path.
        first: String,
    },
    /// Objects that forbid the change of a column.
    #[error("{}", obstacles(.0))]
    Obstacles(Vec<Obstacle>),
    /// The migration would block readers for more than a second.
    #[error("{0}; run `sessiond migrate --offline` when readers can wait that long")]
    NeedsOffline(String),
    /// Another process held a lock during all attempts.
    #[error(
        "could not get a lock in central in {attempts} attempts{}",
        if .blockers.is_empty() { String::new() } else { format!(": it is held by {blockers}") }
    )]
    Locked {
        /// How often the lock was asked for.
        attempts: u32,
        /// The sessions that hold it.
        blockers: String,
    },
    /// Central has migrations that this version does not know.
    #[error("central was migrated by a newer sessiond; update this one")]
    Newer,
    /// An applied migration (its version) differs from the one of this version.
    #[error(
        "migration {0} was changed after it had been applied to central; use the sessiond that applied it, or a \
             newer one"
    )]
    Changed(i64),
    /// An error of central, without the advice that it is tried again.
    #[error("{}", without_retry(&.0.to_string()))]
    Central(#[from] CentralError),
}

fn obstacles(obstacles: &[Obstacle]) -> String {
    let each = obstacles.iter().map(|o| {
        let restore = if o.restore.is_empty() { String::new() } else { format!("; afterwards: {}", o.restore) };
        format!("{} must be removed first: {}{restore}", o.object, o.remove)
    });
    one_line(&format!("columns of central cannot get a time zone: {}", each.collect::<Vec<_>>().join(" | ")))
}

/// An error before the address of central is added to it.
pub(in super::super) enum MigrateFailure {
    Sql(sqlx::Error),
    Migrate(MigrateError),
    /// The time to take all locks was over.
    LockTimeout(sqlx::Error),
}

impl From<sqlx::Error> for MigrateFailure {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<MigrateError> for MigrateFailure {
    fn from(error: MigrateError) -> Self {
        Self::Migrate(error)
    }
}

impl From<sqlx::migrate::MigrateError> for MigrateFailure {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        use sqlx::migrate::MigrateError as Theirs;
        match error {
            Theirs::Execute(error) | Theirs::ExecuteMigration(error, _) => Self::Sql(error),
            Theirs::VersionMissing(_) => Self::Migrate(MigrateError::Newer),
            Theirs::VersionMismatch(version) => Self::Migrate(MigrateError::Changed(version)),
            other => Self::Migrate(MigrateError::Central(CentralError::Reject(Rejection::without_code(one_line(
                &other.to_string(),
            ))))),
        }
    }
}

/// Errors that another attempt would meet again: an unsupported feature, dependent objects, an invalid definition.
const PERMANENT: [&str; 3] = ["0A000", "2BP01", "42P16"];

impl MigrateFailure {
    /// An error of the statement that takes all locks: where the server ended it, its time was over.
    pub(super) fn of_locks(error: sqlx::Error) -> Self {
        if code(&error) == Some("57014") { Self::LockTimeout(error) } else { Self::Sql(error) }
    }

    /// Another process held a lock for too long, or this one was ended by a deadlock.
    pub(super) fn is_lock_timeout(&self) -> bool {
        match self {
            Self::LockTimeout(_) => true,
            Self::Sql(error) => matches!(code(error), Some("55P03" | "40P01")),
            Self::Migrate(_) => false,
        }
    }

    /// The error with the address of central.
    pub(super) fn explain(self, place: &str) -> MigrateError {
        match self {
            Self::Sql(error) | Self::LockTimeout(error) => {
                match database(&error).filter(|error| PERMANENT.contains(&error.code())) {
                    Some(error) => {
                        let about = error.detail().or(error.hint()).map(|more| format!(": {more}")).unwrap_or_default();
                        let why = format!("central {place}: {} ({}){about}", error.message(), error.code());
                        MigrateError::Central(CentralError::Reject(Rejection::without_code(one_line(&why))))
                    }
                    None => MigrateError::Central(classify(error, place)),
                }
            }
            Self::Migrate(error) => error,
        }
    }
}

fn database(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error().and_then(|error| error.try_downcast_ref())
}

fn code(error: &sqlx::Error) -> Option<&str> {
    database(error).map(PgDatabaseError::code)
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::super::super::errors::BY_ITSELF;
    use super::*;

    #[test]
    fn verb_does_not_promise_another_attempt() {
        let message = |text: String| MigrateError::from(CentralError::retry(text)).to_string();
        assert_eq!(message(format!("central a broke (x); {BY_ITSELF}")), "central a broke (x)");
        assert_eq!(
            message(format!("central a cannot be reached: x; {BY_ITSELF}, if host and port are right")),
            "central a cannot be reached: x; check host and port"
        );
        assert_eq!(message("make room on central's disk".into()), "make room on central's disk");
        assert!(MigrateError::from(CentralError::OutOfStep).source().is_some());
    }
}
