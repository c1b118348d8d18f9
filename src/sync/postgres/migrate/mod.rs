//! Updates central's schema.
//!
//! Everything is checked first: which files are pending, which columns have no time zone and in which zone their
//! rows are, which objects forbid the change, how long it takes. Then either nothing is changed, with an error that says
//! what to do, or the files are applied in one transaction. On large tables that would keep readers out for long, so there
//! [`online`] does the slow parts before, in steps that can be repeated; what it cannot do without keeping readers
//! out needs `--offline`.

use std::borrow::Cow;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Executor, Row, SqlSafeStr};

mod columns;
mod convert;
mod error;
mod locks;
mod obstacles;
mod online;
mod views;
mod wait;

pub use error::{MigrateError, Obstacle};

use self::columns::{CentralTable, Given, NaiveColumn};
use self::error::MigrateFailure;
use self::locks::Locks;
use self::wait::MigrationConnection;
use super::capabilities::{self, Engine};
use super::connect::{Connected, PostgresOptions};
use super::{sql, zone};

/// The table of applied migrations. Another service may use `_sqlx_migrations`.
const BOOKS: &str = "sessiond_migrations";

const FILES: [(i64, &str, &str); 14] = [
    (
        1_769_700_000_000,
        "session_registry",
        include_str!("../../../../migrations/central/1769700000000_session_registry.sql"),
    ),
    (
        1_769_950_000_000,
        "add_host_machine",
        include_str!("../../../../migrations/central/1769950000000_add_host_machine.sql"),
    ),
    (1_770_000_000_000, "sessiond", include_str!("../../../../migrations/central/1770000000000_sessiond.sql")),
    (
        1_780_000_000_000,
        "mirror_and_history",
        include_str!("../../../../migrations/central/1780000000000_mirror_and_history.sql"),
    ),
    (
        VIEWS,
        "silent_sessions_and_views",
        include_str!("../../../../migrations/central/1790000000000_silent_sessions_and_views.sql"),
    ),
    (
        1_791_000_000_000,
        "merge_by_column",
        include_str!("../../../../migrations/central/1791000000000_merge_by_column.sql"),
    ),
    (
        1_792_000_000_000,
        "guard_of_column_times",
        include_str!("../../../../migrations/central/1792000000000_guard_of_column_times.sql"),
    ),
    (1_793_000_000_000, "session_work", include_str!("../../../../migrations/central/1793000000000_session_work.sql")),
    (1_794_000_000_000, "rate_limits", include_str!("../../../../migrations/central/1794000000000_rate_limits.sql")),
    (1_795_000_000_000, "agents", include_str!("../../../../migrations/central/1795000000000_agents.sql")),
    (1_796_000_000_000, "vouching", include_str!("../../../../migrations/central/1796000000000_vouching.sql")),
    (
        1_797_000_000_000,
        "activity_history",
        include_str!("../../../../migrations/central/1797000000000_activity_history.sql"),
    ),
    (1_798_000_000_000, "leases", include_str!("../../../../migrations/central/1798000000000_leases.sql")),
    (
        REPAIRS,
        "partitions_and_postgres_13",
        include_str!("../../../../migrations/central/1799000000000_partitions_and_postgres_13.sql"),
    ),
];

/// The file that is applied again when views were put back after it.
const VIEWS: i64 = 1_790_000_000_000;

/// The file that creates each trigger that is gone.
const REPAIRS: i64 = 1_799_000_000_000;

/// The file that is applied again if a table was added after it.
const HISTORY: i64 = 1_780_000_000_000;

/// Whether others may read and write central meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MigrationMode {
    /// Large tables are changed in small steps.
    Online,
    /// Everything is done in one transaction.
    Offline,
}

/// One migration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationStep {
    /// The name of its file, without the extension.
    pub name: String,
    /// The content of the file.
    pub sql: &'static str,
}

/// The arguments of a migration.
#[derive(Clone, Debug, Default)]
pub struct MigrateRequest {
    /// The zones of existing times: `ZONE` for all columns, or `TABLE.COLUMN=ZONE`.
    pub time_zones: Vec<String>,
    /// Only report what would be done.
    pub dry_run: bool,
    /// Large tables may be locked for long.
    pub offline: bool,
}

/// What was done, or would be done by a dry run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationReport {
    /// The files, in order.
    pub steps: Vec<MigrationStep>,
    /// The zone that was assumed for existing naive times, if there were any.
    pub time_zone: Option<String>,
    /// What is rewritten, with an estimate, and warnings.
    pub notes: Vec<String>,
}

impl MigrateRequest {
    fn mode(&self) -> MigrationMode {
        if self.offline { MigrationMode::Offline } else { MigrationMode::Online }
    }
}

/// Applies what is pending, with the defaults of [`migrate_with`].
pub async fn migrate(options: &PostgresOptions, time_zone: Option<String>) -> Result<MigrationReport, MigrateError> {
    let request = MigrateRequest { time_zones: time_zone.into_iter().collect(), ..MigrateRequest::default() };
    migrate_with(options, &request, &mut |_| {}).await
}

/// Applies what is pending. `say` receives lines of progress: what is done next, and what it waits for.
///
/// # Errors
/// After an error nothing was changed, except for steps on a large central that the next call skips.
pub async fn migrate_with(
    options: &PostgresOptions,
    request: &MigrateRequest,
    say: &mut (dyn FnMut(&str) + Send),
) -> Result<MigrationReport, MigrateError> {
    // The login may own the tunnel of its connection.
    let Connected { connection, place, login: _login } = options.connect().await?;
    let (watcher, _login_of_watcher) =
        options.connect().await.ok().map(|connected| (connected.connection, connected.login)).unzip();
    let mut waiting = MigrationConnection { connection, watcher, say };
    run(&mut waiting, request).await.map_err(|failure| failure.explain(&place))
}

async fn run(
    waiting: &mut MigrationConnection<'_>,
    request: &MigrateRequest,
) -> Result<MigrationReport, MigrateFailure> {
    let engine = sqlx::query(sql::ENGINE).persistent(false).fetch_one(&mut waiting.connection).await?;
    if let Some(why) = Engine::read(&engine)?.unsupported() {
        return Err(MigrateError::Unsupported(why).into());
    }
    let key = sqlx::query(sql::SESSION_KEY).persistent(false).fetch_optional(&mut waiting.connection).await?;
    if let Some(why) = key.as_ref().map(capabilities::unusable_key).transpose()?.flatten() {
        return Err(MigrateError::Unsupported(why).into());
    }
    let plan = waiting
        .attempt(&Locks::default(), async |c: &mut PgConnection| MigrationPlan::read(c, &request.time_zones).await)
        .await?;
    if !plan.pending.is_empty() {
        check_schema(&mut waiting.connection).await?;
    }
    if !plan.obstacles.is_empty() {
        return Err(MigrateError::Obstacles(plan.obstacles).into());
    }
    let reasons = plan.offline_reasons();
    let mut notes = plan.notes(request.mode());
    if request.dry_run {
        if !request.offline && !reasons.is_empty() {
            notes.push("run with --offline: without it, nothing is changed".into());
        }
        return Ok(MigrationReport { steps: plan.pending, time_zone: plan.zone, notes });
    }
    notes.iter().for_each(|note| (waiting.say)(note));
    if !request.offline && !reasons.is_empty() {
        return Err(MigrateError::NeedsOffline(reasons.join("; ")).into());
    }
    let online = plan.is_slow() && !request.offline;
    if online {
        online::prepare(waiting, &plan.tables, &plan.columns).await?;
    } else if plan.rebuilds {
        online::rebuild(waiting).await?;
    }
    let columns: &[NaiveColumn] = if online { &[] } else { &plan.columns };
    if !plan.pending.is_empty() {
        let locks = locks_of_files(columns);
        waiting.attempt(&locks, async |c: &mut PgConnection| apply(c, &plan.tables, columns).await).await?;
    }
    online::analyze(&mut waiting.connection, &plan.columns).await;
    Ok(MigrationReport { steps: plan.pending, time_zone: plan.zone, notes })
}

/// Where the table of sessions is, and where tables would be created, if these differ.
const OTHER_SCHEMA: &str = "\
    SELECT relnamespace::regnamespace::text, coalesce(quote_ident(current_schema()), 'no schema') FROM pg_class \
    WHERE oid = to_regclass('supervisor_sessions') \
        AND relnamespace IS DISTINCT FROM to_regnamespace(quote_ident(current_schema()))::oid";

/// `CREATE TABLE IF NOT EXISTS` looks in the first schema of the search_path only.
async fn check_schema(connection: &mut PgConnection) -> Result<(), MigrateFailure> {
    match sqlx::query(OTHER_SCHEMA).fetch_optional(connection).await? {
        Some(row) => Err(MigrateError::OtherSchema { found: row.try_get(0)?, first: row.try_get(1)? }.into()),
        None => Ok(()),
    }
}

/// The state of central, and what has to be done.
struct MigrationPlan {
    tables: Vec<CentralTable>,
    columns: Vec<NaiveColumn>,
    zone: Option<String>,
    pending: Vec<MigrationStep>,
    /// An earlier migration was interrupted before it had built all indexes again.
    rebuilds: bool,
    obstacles: Vec<Obstacle>,
    encoding: String,
}

pub(super) const ENCODING: &str =
    "SELECT pg_encoding_to_char(encoding)::text FROM pg_database WHERE datname = current_database()";

impl MigrationPlan {
    async fn read(connection: &mut PgConnection, time_zones: &[String]) -> Result<Self, MigrateFailure> {
        let given = Given::read(connection, time_zones).await?;
        let (columns, zone) = columns::naive(connection, &given).await?;
        Ok(Self {
            tables: columns::tables(connection).await?,
            zone,
            pending: pending(connection).await?,
            rebuilds: online::has_rebuilds(connection).await?,
            obstacles: if columns.is_empty() { Vec::new() } else { obstacles::find(connection, &columns).await? },
            encoding: sqlx::query(ENCODING).fetch_one(connection).await?.try_get(0)?,
            columns,
        })
    }

    /// The tables on which the pending files do more than change the catalog.
    fn worked_on(&self) -> impl Iterator<Item = &CentralTable> {
        let history = FILES.iter().filter(|(version, ..)| *version <= HISTORY);
        let names: Vec<String> = history.map(|(version, name, _)| format!("{version}_{name}")).collect();
        let builds = self.pending.iter().any(|step| names.contains(&step.name));
        self.tables.iter().filter(move |table| builds || self.columns_of(table).next().is_some())
    }

    fn columns_of<'a>(&'a self, table: &'a CentralTable) -> impl Iterator<Item = &'a NaiveColumn> {
        self.columns.iter().filter(|column| column.table == table.name)
    }

    fn is_rewritten(&self, table: &CentralTable) -> bool {
        self.columns_of(table).any(|column| !zone::is_utc(&column.zone))
    }

    /// Whether one transaction would block readers for more than a second.
    fn is_slow(&self) -> bool {
        self.worked_on().any(CentralTable::is_large)
    }

    /// What blocks readers for more than a second even in small steps.
    fn offline_reasons(&self) -> Vec<String> {
        let locked = |table: &&CentralTable| table.is_large() && (table.partitioned || self.is_rewritten(table));
        self.worked_on().filter(locked).map(|table| self.note(table, MigrationMode::Offline)).collect()
    }

    /// The notes of the report.
    fn notes(&self, mode: MigrationMode) -> Vec<String> {
        let worth =
            |table: &&CentralTable| table.is_large() || self.columns_of(table).next().is_some() && self.zone.is_some();
        let mut notes: Vec<String> = self.worked_on().filter(worth).map(|table| self.note(table, mode)).collect();
        if self.encoding != "UTF8" {
            notes.push(format!(
                "warning: central's database is encoded in {}, which lacks most characters: sessions and records that \
                 contain others are parked; move it to a database with ENCODING 'UTF8' (pg_dump, createdb, pg_restore)",
                self.encoding
            ));
        }
        notes
    }

    fn note(&self, table: &CentralTable, mode: MigrationMode) -> String {
        let names = self.columns_of(table).map(|c| format!("{} ({})", c.name, c.zone)).collect::<Vec<_>>().join(", ");
        let seconds = table.seconds();
        let zoned = if names.is_empty() { String::new() } else { format!("; a time zone is given to {names}") };
        let how = if self.is_rewritten(table) {
            format!("the table is rewritten, which takes about {seconds} s, and it cannot be read or written meanwhile")
        } else if table.is_large() && (mode == MigrationMode::Offline || table.partitioned) {
            format!(
                "indexes are built, which takes about {seconds} s, and the table cannot be read or written meanwhile"
            )
        } else if table.is_large() {
            format!("indexes are built, which takes about {seconds} s, while others read and write the table")
        } else {
            "the table is not rewritten".into()
        };
        format!("{}{zoned}; {how}", table.size())
    }
}

/// What the files change, and the columns that get a zone along with them.
fn locks_of_files(columns: &[NaiveColumn]) -> Locks<'_> {
    Locks {
        tables: vec![
            "supervisor_sessions",
            "event_store",
            "command_log",
            "checkpoints",
            "sessiond_hosts",
            "sessiond_sweep",
            "sessiond_tombstones",
            "sessiond_history",
        ],
        with_views: columns.iter().map(|column| column.table.as_str()).collect(),
        views: vec!["active_sessions_by_machine", "sessions_with_machine"],
    }
}

/// Applies the pending files, all or none.
async fn apply(
    connection: &mut PgConnection,
    tables: &[CentralTable],
    columns: &[NaiveColumn],
) -> Result<(), MigrateFailure> {
    for table in tables {
        let of_table: Vec<&NaiveColumn> = columns.iter().filter(|column| column.table == table.name).collect();
        if !of_table.is_empty() {
            convert::convert(connection, &table.name, &of_table, convert::IndexRebuild::AtOnce).await?;
        }
    }
    let kept = views::keep(connection).await?;
    migrator().run_direct(None, &mut *connection, false).await?;
    views::put_back(connection, &kept).await?;
    // A restored view with the columns of the second file gets those of the earlier services. A later file may replace
    // what an earlier one defines, so all files from the first one that is needed on are applied.
    let again = if is_left_behind(connection).await? { HISTORY } else { VIEWS };
    let files = FILES.into_iter().filter(|(version, ..)| *version >= again);
    // A file that creates several triggers together fails if only some of them are there.
    let repairs = FILES.into_iter().filter(|(version, ..)| *version == REPAIRS);
    for (.., sql) in repairs.chain(files) {
        connection.execute(sqlx::raw_sql(sql)).await?;
    }
    // sqlx names its statements here; a pooler would pass them to other clients.
    connection.execute("DEALLOCATE ALL").await?;
    Ok(())
}

/// Whether the earlier services created a table after the last file was applied, which therefore skipped it.
const IS_LEFT_BEHIND: &str = "\
    SELECT EXISTS (SELECT FROM unnest(ARRAY['event_store', 'command_log', 'checkpoints']) AS name \
        WHERE to_regclass(name) IS NOT NULL AND (NOT EXISTS (SELECT FROM pg_trigger \
                WHERE tgrelid = to_regclass(name) AND tgname = 'trg_sessiond_note_history') \
            OR name = 'command_log' AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass(name) \
                AND attname = 'created_at' AND atttypid = 'timestamp'::regtype)))";

/// Whether the migrated tables lack a trigger. A disabled one stays disabled: an operator did that.
async fn lacks_triggers(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let rows = sqlx::query(sql::MISSING_TRIGGERS).persistent(false).fetch_all(connection).await?;
    let exist = rows.iter().map(|row| row.try_get(2)).collect::<Result<Vec<bool>, _>>()?;
    Ok(exist.contains(&false))
}

async fn is_left_behind(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    if sqlx::query(IS_LEFT_BEHIND).fetch_one(&mut *connection).await?.try_get(0)? {
        return Ok(true);
    }
    lacks_triggers(connection).await
}

pub(super) async fn pending(connection: &mut PgConnection) -> Result<Vec<MigrationStep>, sqlx::Error> {
    let applied = applied(connection).await?;
    let again = is_left_behind(connection).await?;
    Ok(FILES
        .iter()
        .filter(|(version, ..)| !applied.contains(version) || (again && *version >= HISTORY))
        .map(|(version, name, sql)| MigrationStep { name: format!("{version}_{name}"), sql })
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
