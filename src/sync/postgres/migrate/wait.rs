//! Transactions that wait only briefly for a lock, and name the process that holds it.
//!
//! A statement that waits for an exclusive lock blocks all that come after it. So each attempt waits half a second at most
//! for all exclusive locks together (see [`super::locks`]), rolls back, and is repeated a few times. While it waits, a
//! second connection asks the server which processes block it; without that connection (a limit on connections) the error
//! names none.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};
use tokio::time::sleep;

use super::super::errors::one_line;
use super::error::{MigrateError, MigrateFailure};
use super::locks::Locks;

/// How long one attempt waits for a lock that keeps no reader out. Autovacuum gives way after `deadlock_timeout`, which is
/// one second by default.
const LOCK_TIMEOUT: Duration = Duration::from_secs(3);

const ATTEMPTS: u32 = 8;

/// The pause after the first attempt; each later one is longer by the same amount.
const PAUSE: Duration = Duration::from_millis(500);

/// How often the second connection checks.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The limits of the role and the database are for clients; some are unknown to older servers.
const LIMITS: &str = "\
    SELECT set_config(name, CASE name WHEN 'lock_timeout' THEN $1 ELSE '0' END, true) FROM pg_settings WHERE name IN \
        ('lock_timeout', 'statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')";

/// Makes migrations run one after another.
const ALONE: &str = "SELECT pg_advisory_xact_lock(hashtext('sessiond migrate'))";

const BLOCKERS: &str = "\
    SELECT format('process %s (user %s, application %s, %s%s)', a.pid, coalesce(a.usename, '?'), \
        coalesce(nullif(a.application_name, ''), '?'), coalesce(a.state, 'state unknown'), \
        coalesce(', query since ' || to_char(a.query_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC', '')), \
        a.pid \
    FROM unnest(pg_blocking_pids($1)) AS b (pid) JOIN pg_stat_activity a USING (pid)";

/// The connection of a migration, and one that reads what it waits for.
pub(super) struct MigrationConnection<'a> {
    pub connection: PgConnection,
    pub watcher: Option<PgConnection>,
    /// Shows a line of progress.
    pub say: &'a mut (dyn FnMut(&str) + Send),
}

impl MigrationConnection<'_> {
    /// Runs `work` in a transaction that holds `locks`, and repeats it while a lock is not available.
    pub(super) async fn attempt<T>(
        &mut self,
        locks: &Locks<'_>,
        work: impl AsyncFn(&mut PgConnection) -> Result<T, MigrateFailure>,
    ) -> Result<T, MigrateFailure> {
        let mut attempt = 0;
        loop {
            let mut blockers = Vec::new();
            let mut transaction = self.connection.begin().await?;
            let pid = sqlx::query("SELECT pg_backend_pid()").fetch_one(&mut *transaction).await?.try_get(0)?;
            let limit = format!("{}ms", LOCK_TIMEOUT.as_millis());
            sqlx::query(LIMITS).bind(limit).fetch_all(&mut *transaction).await?;
            let working = async {
                sqlx::query(ALONE).execute(&mut *transaction).await?;
                locks.take(&mut transaction).await?;
                work(&mut transaction).await
            };
            let outcome = tokio::select! {
                outcome = working => outcome,
                () = watch(self.watcher.as_mut(), pid, &mut blockers) => continue,
            };
            match outcome {
                Ok(value) => {
                    transaction.commit().await?;
                    return Ok(value);
                }
                Err(failure) if failure.is_lock_timeout() => {
                    transaction.rollback().await?;
                    attempt += 1;
                    if attempt == ATTEMPTS {
                        return Err(MigrateError::Locked { attempts: ATTEMPTS, blockers: blockers.join(", ") }.into());
                    }
                    (self.say)(&format!("waiting for a lock held by {}", named(&blockers)));
                    sleep(PAUSE * attempt).await;
                }
                Err(failure) => return Err(failure),
            }
        }
    }
}

pub(super) fn named(blockers: &[String]) -> String {
    if blockers.is_empty() { "a process that this user cannot see".into() } else { blockers.join(", ") }
}

/// Keeps the newest list of processes that `pid` waits for. Never returns.
pub(super) async fn watch(watcher: Option<&mut PgConnection>, pid: i32, blockers: &mut Vec<String>) {
    if let Some(watcher) = watcher {
        loop {
            sleep(CHECK_INTERVAL).await;
            match sqlx::query(BLOCKERS).bind(pid).fetch_all(&mut *watcher).await {
                Ok(rows) if rows.is_empty() => {}
                Ok(rows) => {
                    *blockers =
                        rows.iter().filter_map(|row| row.try_get(0).ok()).map(|s: String| one_line(&s)).collect()
                }
                Err(_) => break,
            }
        }
    }
    std::future::pending().await
}
