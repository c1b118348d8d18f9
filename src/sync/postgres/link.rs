//! One connection, on which every round trip has a limit.
//!
//! The limits are set on both sides: this side stops waiting a little later than the server, whose error says more than
//! a timeout. They are set per transaction, so that a pooler never passes them on, and so that a host that falls asleep
//! in a transaction holds no locks.

use std::fmt;
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Decode, Executor, Postgres, Row, Type};
use tokio::time::timeout;
use uuid::Uuid;

use super::connect::{Connected, Login, PostgresOptions};
use super::errors::{BY_ITSELF, classify};
use crate::domain::Timestamp;
use crate::sync::central::CentralError;

/// How much longer this side waits than the server: an error of the server says more than a timeout.
const MARGIN: Duration = Duration::from_millis(250);

/// The slowest line, in bytes per second, on which a large batch has enough time. On a slower one it is halved, and then
/// takes half the time.
const SLOWEST_LINE: usize = 16 << 10;

/// The longest wait for a lock on a row. After it the other rows are pushed without that one.
const LONGEST_LOCK: Duration = Duration::from_secs(2);

/// What a transaction is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Each statement reads what was committed before it.
    Read,
    /// All statements read what was committed before the first one.
    ReadSnapshot,
    Write,
}

pub(super) struct Link {
    connection: PgConnection,
    limit: Duration,
    /// How much longer than the limit a statement of this transaction may take, for the bytes that it sends.
    allowance: Duration,
    /// Central's clock as of the last batch.
    pub(super) last_clock: Option<Timestamp>,
    /// When the transaction of the last batch began, which is `now()` in it.
    pub(super) batch_began: Timestamp,
    place: String,
    login: Login,
    /// The host that makes the changes, for the triggers of the mirror.
    host_id: Uuid,
    /// Every host judges sessions by the last contact of their hosts, so that heartbeats need not be marked as changes.
    pub(super) heartbeats_unmarked: bool,
}

impl Link {
    pub(super) async fn open(options: &PostgresOptions, host_id: Uuid) -> Result<Self, CentralError> {
        let Connected { connection, place, login } = options.connect().await?;
        Ok(Self {
            connection,
            limit: options.statement_timeout,
            allowance: Duration::ZERO,
            last_clock: None,
            batch_began: Timestamp::from_micros(0),
            place,
            login,
            host_id,
            heartbeats_unmarked: false,
        })
    }

    /// How to connect to the same server again.
    pub(super) fn login(&self) -> &PgConnectOptions {
        &self.login.options
    }

    /// Begins a transaction.
    pub(super) async fn begin(&mut self) -> Result<(), CentralError> {
        let begin = self.beginning(Access::Write);
        self.run(begin).await
    }

    /// Begins a transaction that only reads.
    pub(super) async fn begin_reading(&mut self, access: Access) -> Result<(), CentralError> {
        let begin = self.beginning(access);
        self.run(begin).await
    }

    /// Adds time to send `bytes` to the limit of this transaction's statements. The server's limit starts when it has
    /// received a statement; until then the transaction counts as idle there.
    pub(super) fn allow_for(&mut self, bytes: usize) {
        self.allowance += Duration::from_secs_f64(bytes as f64 / SLOWEST_LINE as f64);
    }

    /// Begins a transaction with a statement in the same round trip, and returns its rows. The statement has no
    /// parameters: its values have to be numbers and UUIDs, which need no quoting.
    pub(super) async fn begin_with(&mut self, access: Access, statement: String) -> Result<Vec<PgRow>, CentralError> {
        let sql = sqlx::raw_sql(AssertSqlSafe(self.beginning(access) + "; " + &statement));
        let answer = timeout(self.patience(), sql.fetch_all(&mut self.connection)).await;
        self.answer(answer)
    }

    /// How long this side waits for an answer.
    fn patience(&self) -> Duration {
        self.limit + MARGIN + self.allowance
    }

    /// The settings of a transaction cost the server more than its BEGIN, so one that reads has none for triggers.
    fn beginning(&self, access: Access) -> String {
        let limit = self.limit.as_millis().clamp(1, i32::MAX as u128 / 2);
        let mode = match access {
            Access::Read => "READ COMMITTED READ ONLY",
            Access::ReadSnapshot => "REPEATABLE READ READ ONLY",
            Access::Write => "READ COMMITTED",
        };
        let mut sql = format!(
            "BEGIN ISOLATION LEVEL {mode}; SET LOCAL statement_timeout = {limit}; \
             SET LOCAL lock_timeout = {}; SET LOCAL idle_in_transaction_session_timeout = {}",
            limit.div_ceil(2).min(LONGEST_LOCK.as_millis()),
            (self.limit * 2 + self.allowance).as_millis(),
        );
        if access == Access::Write {
            sql += "; SET LOCAL sessiond.replay = 'on'; SET LOCAL sessiond.columns = 'on'";
            sql += &format!("; SET LOCAL sessiond.host = '{}'", self.host_id);
            if self.heartbeats_unmarked {
                sql += "; SET LOCAL sessiond.vouched = 'on'";
            }
        }
        sql
    }

    pub(super) async fn commit(&mut self) -> Result<(), CentralError> {
        let committed = self.run("COMMIT".into()).await;
        self.allowance = Duration::ZERO;
        committed
    }

    pub(super) async fn rollback(&mut self) -> Result<(), CentralError> {
        self.allowance = Duration::ZERO;
        self.run("ROLLBACK".into()).await
    }

    /// Runs a query and reads all its rows.
    pub(super) async fn rows(&mut self, query: Query<'_, Postgres, PgArguments>) -> Result<Vec<PgRow>, CentralError> {
        let answer = timeout(self.patience(), query.persistent(false).fetch_all(&mut self.connection)).await;
        self.answer(answer)
    }

    /// Runs a statement whose rows another transaction may insert first. Returns false, with the transaction as it was
    /// before, if a unique constraint is violated.
    pub(super) async fn try_rows(&mut self, query: Query<'_, Postgres, PgArguments>) -> Result<bool, CentralError> {
        self.savepoint().await?;
        let answer = timeout(self.patience(), query.persistent(false).fetch_all(&mut self.connection)).await;
        let taken = |error: &sqlx::Error| error.as_database_error().is_some_and(|error| error.is_unique_violation());
        if matches!(&answer, Ok(Err(error)) if taken(error)) {
            self.undo().await?;
            return Ok(false);
        }
        self.answer(answer)?;
        self.release().await?;
        Ok(true)
    }

    /// Begins a part of the transaction that may fail by itself.
    pub(super) async fn savepoint(&mut self) -> Result<(), CentralError> {
        self.run("SAVEPOINT part".into()).await
    }

    /// Keeps what the part has done.
    pub(super) async fn release(&mut self) -> Result<(), CentralError> {
        self.run("RELEASE SAVEPOINT part".into()).await
    }

    /// Undoes what the part has done. The transaction goes on, also after an error.
    pub(super) async fn undo(&mut self) -> Result<(), CentralError> {
        self.run("ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part".into()).await
    }

    /// Runs statements without parameters in one round trip.
    async fn run(&mut self, sql: String) -> Result<(), CentralError> {
        let answer = timeout(self.patience(), self.connection.execute(sqlx::raw_sql(AssertSqlSafe(sql)))).await;
        self.answer(answer).map(|_| ())
    }

    fn answer<T>(
        &self,
        answer: Result<Result<T, sqlx::Error>, tokio::time::error::Elapsed>,
    ) -> Result<T, CentralError> {
        match answer {
            Ok(answer) => answer.map_err(|error| classify(error, &self.place)),
            Err(_) => Err(CentralError::retry(format!(
                "central {} did not answer within {}; {BY_ITSELF}",
                self.place,
                humantime::format_duration(Duration::from_millis(
                    self.patience().saturating_sub(MARGIN).as_millis() as u64
                ))
            ))),
        }
    }
}

/// The connection itself knows the password.
impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("place", &self.place).finish_non_exhaustive()
    }
}

/// A duration in microseconds, as the statements take it.
pub(super) fn micros_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// A number or a UUID as a literal. Nothing that holds a quote may be given.
pub(super) fn quoted(value: impl fmt::Display) -> String {
    format!("'{value}'")
}

/// Replaces `$1`, `$2`, ... by these texts, at most nine.
pub(super) fn with_literals(sql: &str, values: &[String]) -> String {
    let numbered = (1..).zip(values);
    numbered.fold(sql.to_owned(), |sql, (number, value)| sql.replace(&format!("${number}"), value))
}

/// One column of a row.
///
/// # Errors
/// `Retry` if the value has another type: that is a fault of central, not of this host's data.
pub(super) fn column<'r, T>(row: &'r PgRow, index: usize) -> Result<T, CentralError>
where
    T: Decode<'r, Postgres> + Type<Postgres>,
{
    row.try_get(index)
        .map_err(|error| CentralError::retry(format!("central's answer is not understood: {error}")).caused_by(error))
}
