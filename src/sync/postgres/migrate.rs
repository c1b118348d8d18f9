//! Bringing central's schema up to date, all of it or nothing.

use std::borrow::Cow;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Executor, Row, SqlSafeStr};

use super::connect::{Connected, PostgresOptions};
use super::migrate_error::{Failure, MigrateError};
use super::zone;

/// A table of its own: `_sqlx_migrations` may be some other service's.
const BOOKS: &str = "sessiond_migrations";

const FILES: [(i64, &str, &str); 6] = [
    (
        1_769_700_000_000,
        "session_registry",
        include_str!("../../../migrations/central/1769700000000_session_registry.sql"),
    ),
    (
        1_769_950_000_000,
        "add_host_machine",
        include_str!("../../../migrations/central/1769950000000_add_host_machine.sql"),
    ),
    (1_770_000_000_000, "sessiond", include_str!("../../../migrations/central/1770000000000_sessiond.sql")),
    (
        1_780_000_000_000,
        "mirror_and_history",
        include_str!("../../../migrations/central/1780000000000_mirror_and_history.sql"),
    ),
    (
        1_790_000_000_000,
        "silent_sessions_and_views",
        include_str!("../../../migrations/central/1790000000000_silent_sessions_and_views.sql"),
    ),
    (
        1_791_000_000_000,
        "merge_by_column",
        include_str!("../../../migrations/central/1791000000000_merge_by_column.sql"),
    ),
];

/// The file that is applied again when a table was added after it.
const HISTORY: i64 = 1_780_000_000_000;

/// One migration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// As its file is called, without the extension.
    pub name: String,
    pub sql: &'static str,
}

/// What was done, or on a dry run, what would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub steps: Vec<Step>,
    /// The zone in which existing naive times were taken to be, if there were any.
    pub time_zone: Option<String>,
}

/// Applies what is pending. Existing naive times are taken to be of `time_zone`; without it, of the
/// server's own, as far as that can be found out.
pub async fn migrate(
    options: &PostgresOptions,
    time_zone: Option<String>,
    dry_run: bool,
) -> Result<Report, MigrateError> {
    let Connected { mut connection, place, login: _login } = options.connect().await?;
    let result = run(&mut connection, options, time_zone.as_deref(), dry_run).await;
    result.map_err(|failure| failure.explain(&place))
}

async fn run(
    connection: &mut PgConnection,
    options: &PostgresOptions,
    time_zone: Option<&str>,
    dry_run: bool,
) -> Result<Report, Failure> {
    // One transaction: nothing is half done, and a pooler in transaction mode does no harm.
    let mut transaction = connection.begin().await?;
    prepare(&mut transaction, options).await?;
    let zone = zone::needed(&mut transaction, time_zone).await?;
    let pending = pending(&mut transaction).await?;
    if !dry_run {
        if let Some(zone) = &zone {
            sqlx::query("SELECT set_config('TimeZone', $1, true)").bind(zone).execute(&mut *transaction).await?;
        }
        migrator().run_direct(None, &mut *transaction, false).await?;
        if is_left_behind(&mut transaction).await? {
            for (.., sql) in FILES.into_iter().filter(|(version, ..)| *version >= HISTORY) {
                transaction.execute(sqlx::raw_sql(sql)).await?;
            }
        }
        // sqlx names its statements here; a pooler would hand them on.
        transaction.execute("DEALLOCATE ALL").await?;
        transaction.commit().await?;
    }
    Ok(Report { steps: pending, time_zone: zone })
}

/// Two at once would get in each other's way. And who waits long for a lock on the table makes
/// everybody else wait behind.
async fn prepare(connection: &mut PgConnection, options: &PostgresOptions) -> Result<(), sqlx::Error> {
    let limit = format!("{}ms", options.statement_timeout.as_millis().max(1));
    sqlx::query("SELECT set_config('lock_timeout', $1, true)").bind(limit).execute(&mut *connection).await?;
    sqlx::query("SELECT pg_advisory_xact_lock(hashtext('sessiond migrate'))").execute(connection).await?;
    Ok(())
}

/// The earlier services may bring a table of theirs after the last file was applied, which it then passed by.
const IS_LEFT_BEHIND: &str = "\
    SELECT EXISTS (SELECT FROM unnest(ARRAY['event_store', 'command_log', 'checkpoints']) AS name \
        WHERE to_regclass(name) IS NOT NULL AND (NOT EXISTS (SELECT FROM pg_trigger \
                WHERE tgrelid = to_regclass(name) AND tgname = 'trg_sessiond_note_history') \
            OR name = 'command_log' AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass(name) \
                AND attname = 'created_at' AND atttypid = 'timestamp'::regtype)))";

async fn is_left_behind(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query(IS_LEFT_BEHIND).fetch_one(connection).await?.try_get(0)
}

pub(super) async fn pending(connection: &mut PgConnection) -> Result<Vec<Step>, sqlx::Error> {
    let applied = applied(connection).await?;
    let again = is_left_behind(connection).await?;
    Ok(FILES
        .iter()
        .filter(|(version, ..)| !applied.contains(version) || (again && *version >= HISTORY))
        .map(|(version, name, sql)| Step { name: format!("{version}_{name}"), sql })
        .collect())
}

async fn applied(connection: &mut PgConnection) -> Result<Vec<i64>, sqlx::Error> {
    let kept = sqlx::query("SELECT to_regclass($1) IS NOT NULL").bind(BOOKS).fetch_one(&mut *connection).await?;
    if !kept.try_get::<bool, _>(0)? {
        return Ok(Vec::new());
    }
    let rows = sqlx::query("SELECT version FROM sessiond_migrations").fetch_all(connection).await?;
    rows.iter().map(|row: &PgRow| row.try_get(0)).collect()
}

fn migrator() -> Migrator {
    let migrations = FILES.map(|(version, name, sql)| {
        Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, sql.into_sql_str(), false)
    });
    let mut migrator = Migrator::with_migrations(migrations.into());
    migrator.dangerous_set_table_name(BOOKS);
    migrator.set_locking(false);
    migrator
}
