//! Prepares a large central before the migration files are applied, so that these take little time.
//!
//! The files are applied in one transaction, which keeps the locks of its first statement until its last. On a table
//! of a million rows, building indexes and checking constraints in it would block readers for many seconds. So this
//! is done before, in steps that block others for less than a second: columns are added, constraints added
//! unchecked and checked later, indexes built concurrently. Each step is skipped if it is done already, so that the next
//! migration continues an interrupted one.

use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgConnection;
use tokio::time::timeout;

use super::columns::{CentralTable, NaiveColumn};
use super::convert::{IndexRebuild, convert, run};
use super::error::{MigrateError, MigrateFailure};
use super::locks::Locks;
use super::wait::{MigrationConnection, watch};

/// The columns that indexes need, as in the migration files, and a constraint that is not validated yet.
const COLUMNS: &str = r"
    ALTER TABLE supervisor_sessions
        ADD COLUMN IF NOT EXISTS host_machine VARCHAR(64) NOT NULL DEFAULT 'odin3',
        ADD COLUMN IF NOT EXISTS claude_session_uuid VARCHAR(64),
        ADD COLUMN IF NOT EXISTS claude_session_path TEXT,
        ADD COLUMN IF NOT EXISTS changed_xid xid8 NOT NULL DEFAULT '0';
    ALTER TABLE supervisor_sessions ALTER COLUMN changed_xid SET DEFAULT pg_current_xact_id();
    DO $$
    BEGIN
        IF NOT EXISTS (
            SELECT FROM pg_constraint
            WHERE conrelid = 'supervisor_sessions'::regclass AND conname = 'valid_host_machine'
        ) THEN
            ALTER TABLE supervisor_sessions ADD CONSTRAINT valid_host_machine
                CHECK (host_machine ~ '^[a-z0-9][a-z0-9_-]*$') NOT VALID;
        END IF;
    END
    $$";

const HAS_COLUMNS: &str = "\
    SELECT 4 = (SELECT count(*) FROM pg_attribute WHERE attrelid = 'supervisor_sessions'::regclass AND NOT attisdropped \
            AND attname IN ('host_machine', 'claude_session_uuid', 'claude_session_path', 'changed_xid')) \
        AND EXISTS (SELECT FROM pg_constraint WHERE conrelid = 'supervisor_sessions'::regclass \
            AND conname = 'valid_host_machine')";

const CHECK: &str = "ALTER TABLE supervisor_sessions VALIDATE CONSTRAINT valid_host_machine";

/// The indexes of the migration files: table, name, and the rest of the statement.
const INDEXES: [(&str, &str, &str); 12] = [
    ("supervisor_sessions", "idx_supervisor_sessions_project_status", "(project, status)"),
    ("supervisor_sessions", "idx_supervisor_sessions_instance_id", "(instance_id)"),
    ("supervisor_sessions", "idx_supervisor_sessions_last_heartbeat", "(last_heartbeat DESC)"),
    ("supervisor_sessions", "idx_supervisor_sessions_project_heartbeat", "(project, last_heartbeat DESC)"),
    ("supervisor_sessions", "idx_supervisor_sessions_host_machine", "(host_machine)"),
    ("supervisor_sessions", "idx_supervisor_sessions_machine_status", "(host_machine, status)"),
    ("supervisor_sessions", "idx_supervisor_sessions_machine_heartbeat", "(host_machine, last_heartbeat DESC)"),
    (
        "supervisor_sessions",
        "idx_supervisor_sessions_claude_uuid",
        "(claude_session_uuid) WHERE claude_session_uuid IS NOT NULL",
    ),
    ("supervisor_sessions", "idx_supervisor_sessions_changed", "(changed_xid, instance_id)"),
    ("command_log", "idx_sessiond_command_record", "((context_data->>'record_id')) WHERE context_data ? 'record_id'"),
    ("command_log", "idx_sessiond_command_log", "(instance_id, id)"),
    ("checkpoints", "idx_sessiond_checkpoints", "(instance_id, sequence_num)"),
];

/// Returns whether an index exists, and is valid: an interrupted build leaves an invalid one.
const STATE: &str = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)";

/// The longest that building an index waits for the transactions that are older than it. It blocks no other transaction.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn prepare(
    waiting: &mut MigrationConnection<'_>,
    tables: &[CentralTable],
    columns: &[NaiveColumn],
) -> Result<(), MigrateFailure> {
    let has_columns: bool = sqlx::query(HAS_COLUMNS).fetch_one(&mut waiting.connection).await?.try_get(0)?;
    if !has_columns {
        (waiting.say)("adding columns to supervisor_sessions");
        let locks = Locks { tables: vec!["supervisor_sessions"], ..Locks::default() };
        waiting.attempt(&locks, async |c: &mut PgConnection| Ok(run(c, COLUMNS.into()).await?)).await?;
    }
    lift_limits(&mut waiting.connection).await?;
    run(&mut waiting.connection, CHECK.into()).await?;
    for table in tables {
        let of_table: Vec<&NaiveColumn> = columns.iter().filter(|column| column.table == table.name).collect();
        if !of_table.is_empty() {
            (waiting.say)(&format!("giving the times of {} a zone", table.name));
            let indexes = if table.is_large() { IndexRebuild::Later } else { IndexRebuild::AtOnce };
            let name = table.name.as_str();
            let locks = Locks { tables: vec![name], with_views: vec![name], ..Locks::default() };
            waiting.attempt(&locks, async |c: &mut PgConnection| convert(c, name, &of_table, indexes).await).await?;
        }
    }
    for (table, name, what) in INDEXES {
        if tables.iter().any(|t| t.name == table && t.is_large() && !t.partitioned) {
            build(waiting, name, format!("CREATE INDEX CONCURRENTLY {name} ON {table} {what}")).await?;
        }
    }
    rebuild(waiting).await?;
    restore_limits(&mut waiting.connection).await?;
    Ok(())
}

const HAS_REBUILDS: &str = "SELECT to_regclass('sessiond_index_rebuilds') IS NOT NULL";

/// Whether an earlier migration was interrupted before it had built all indexes again.
pub(super) async fn has_rebuilds(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query(HAS_REBUILDS).fetch_one(connection).await?.try_get(0)
}

/// Builds the indexes that were dropped for the change of a column's type.
pub(super) async fn rebuild(waiting: &mut MigrationConnection<'_>) -> Result<(), MigrateFailure> {
    if !has_rebuilds(&mut waiting.connection).await? {
        return Ok(());
    }
    lift_limits(&mut waiting.connection).await?;
    let rows = sqlx::query("SELECT name, definition, comment FROM sessiond_index_rebuilds ORDER BY name")
        .fetch_all(&mut waiting.connection)
        .await?;
    for row in &rows {
        let (name, definition): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        build(waiting, &name, definition.replacen("INDEX", "INDEX CONCURRENTLY", 1)).await?;
        if let Some(comment) = row.try_get::<Option<String>, _>(2)? {
            let comment = format!("COMMENT ON INDEX {name} IS '{}'", comment.replace('\'', "''"));
            run(&mut waiting.connection, format!("SET standard_conforming_strings = on; {comment}")).await?;
        }
    }
    run(&mut waiting.connection, "DROP TABLE sessiond_index_rebuilds".into()).await?;
    Ok(restore_limits(&mut waiting.connection).await?)
}

/// Builds an index concurrently, unless it exists.
async fn build(waiting: &mut MigrationConnection<'_>, name: &str, sql: String) -> Result<(), MigrateFailure> {
    let state = sqlx::query(STATE).bind(name).fetch_optional(&mut waiting.connection).await?;
    match state.map(|row| row.try_get::<bool, _>(0)).transpose()? {
        Some(true) => return Ok(()),
        Some(false) => run(&mut waiting.connection, format!("DROP INDEX CONCURRENTLY {name}")).await?,
        None => {}
    }
    (waiting.say)(&format!("building index {name}"));
    let pid = sqlx::query("SELECT pg_backend_pid()").fetch_one(&mut waiting.connection).await?.try_get(0)?;
    let mut blockers = Vec::new();
    let outcome = tokio::select! {
        outcome = run(&mut waiting.connection, sql) => outcome.map_err(MigrateFailure::from),
        () = watch(waiting.watcher.as_mut(), pid, &mut blockers) => Ok(()),
    };
    match outcome {
        Err(failure) if failure.is_lock_timeout() => {
            Err(MigrateError::Locked { attempts: 1, blockers: blockers.join(", ") }.into())
        }
        outcome => outcome,
    }
}

/// The limits of the role and the database are for clients. They cannot be lifted for a transaction here, because
/// indexes are built outside of one.
async fn lift_limits(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    run(connection, format!("SET statement_timeout = 0; SET lock_timeout = {}", PATIENCE.as_millis())).await
}

async fn restore_limits(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    run(connection, "RESET statement_timeout; RESET lock_timeout".into()).await
}

/// Collects new statistics of the columns, whose old ones were deleted with their type.
pub(super) async fn analyze(connection: &mut PgConnection, columns: &[NaiveColumn]) {
    let mut tables: Vec<&str> = columns.iter().map(|column| column.table.as_str()).collect();
    tables.dedup();
    for table in tables {
        // Autovacuum does this too, but later.
        _ = timeout(PATIENCE, run(connection, format!("ANALYZE {table}"))).await;
    }
}
