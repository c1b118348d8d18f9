//! Why central's schema could not be brought up to date.

use super::errors::{classify, one_line};
use crate::sync::central::{CentralError, Rejection};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MigrateError {
    #[error(
        "cannot tell in which time zone earlier clients wrote; give it, e.g. \
         `sessiond migrate --time-zone \"$(psql -Atc 'show timezone')\"`"
    )]
    ZoneUnknown,
    #[error("central knows no time zone \"{0}\"; give one of its pg_timezone_names, such as Europe/Berlin")]
    NoSuchZone(String),
    #[error("central was migrated by a newer sessiond; update this one")]
    Newer,
    #[error(
        "migration {0} was changed after it had been applied to central; use the sessiond that applied it, or a \
             newer one"
    )]
    Changed(i64),
    #[error("{0}")]
    Central(#[from] CentralError),
}

/// What went wrong, before it is known where.
pub(super) enum Failure {
    Sql(sqlx::Error),
    Migrate(MigrateError),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<MigrateError> for Failure {
    fn from(error: MigrateError) -> Self {
        Self::Migrate(error)
    }
}

impl From<sqlx::migrate::MigrateError> for Failure {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        use sqlx::migrate::MigrateError as Theirs;
        match error {
            Theirs::Execute(error) | Theirs::ExecuteMigration(error, _) => Self::Sql(error),
            Theirs::VersionMissing(_) => Self::Migrate(MigrateError::Newer),
            Theirs::VersionMismatch(version) => Self::Migrate(MigrateError::Changed(version)),
            other => Self::Migrate(MigrateError::Central(CentralError::Reject(Rejection {
                code: String::new(),
                message: one_line(&other.to_string()),
            }))),
        }
    }
}

impl Failure {
    pub fn explain(self, place: &str) -> MigrateError {
        match self {
            Self::Sql(error) => MigrateError::Central(classify(&error, place)),
            Self::Migrate(error) => error,
        }
    }
}
