//! The real central: one Postgres connection, used in short transactions only.
//!
//! Nothing is kept in the server's session between transactions and no statement has a name, so a
//! pooler in transaction mode may sit in between. Moments travel as microseconds since 1970, which
//! no setting of either side can bend.

mod checkup;
mod connect;
mod errors;
mod handshake;
mod link;
mod listen;
mod migrate;
mod pull;
mod push;
mod records;
mod sweep;
mod zone;

use std::time::Duration;

use uuid::Uuid;

pub use checkup::checkup;
pub use connect::{InvalidOptions, PostgresOptions};
pub use migrate::{MigrateError, Obstacle, Report, Request, Step, migrate, migrate_with};

use self::link::Link;
use self::listen::ChangeListener;
use super::central::{
    Accepted, Batch, Central, CentralError, HostRegistration, Notification, Rejection, RowOutcome, SweepResult,
};
use crate::domain::mirror::{Changes, HostSeen, Reading};
use crate::domain::{HistoryTables, InstanceId, MachineName, Timestamp};

/// The column `$t` as microseconds since 1970, whatever may be in it: infinity too.
macro_rules! micros {
    ($t:literal) => {
        concat!(
            "(CASE WHEN ",
            $t,
            " IS NOT NULL THEN extract(epoch FROM greatest(least(",
            $t,
            ", '9999-12-31Z'), '0001-01-01Z')) * 1000000 END)::bigint"
        )
    };
}

/// The moment that is `$us` microseconds after 1970 began in UTC.
macro_rules! moment {
    ($us:literal) => {
        concat!("(timestamptz 'epoch' + ", $us, " * interval '1 microsecond')")
    };
}

/// A duration of `$us` microseconds.
macro_rules! interval {
    ($us:literal) => {
        concat!("(", $us, " * interval '1 microsecond')")
    };
}

use {interval, micros, moment};

/// Central as a Postgres database.
#[derive(Debug)]
pub struct Postgres {
    options: PostgresOptions,
    session: Option<Session>,
    listener: Option<ChangeListener>,
}

/// A connection on which this host has been welcomed.
#[derive(Debug)]
struct Session {
    link: Link,
    me: RegisteredHost,
}

/// Whom central welcomed.
#[derive(Debug)]
struct RegisteredHost {
    host_id: Uuid,
    claim: Uuid,
    own_claims: Vec<Uuid>,
    name: MachineName,
    former_names: Vec<MachineName>,
    shapes: records::Shapes,
}

impl RegisteredHost {
    /// All names under which this host's sessions may be filed.
    fn names(&self) -> Vec<&str> {
        self.former_names.iter().chain([&self.name]).map(MachineName::as_str).collect()
    }
}

impl Postgres {
    pub fn new(options: PostgresOptions) -> Self {
        Self { options, session: None, listener: None }
    }

    /// The session is taken out for the length of a call: one that is abandoned half way takes its
    /// connection with it.
    fn take(&mut self) -> Result<Session, CentralError> {
        self.session.take().ok_or_else(|| CentralError::Retry("not connected to central".into()))
    }

    /// Puts the session back if it can still be used.
    async fn settle<T>(&mut self, mut session: Session, result: Result<T, CentralError>) -> Result<T, CentralError> {
        let usable = match &result {
            Ok(_) => true,
            Err(CentralError::Retry(_) | CentralError::Conflict(_)) => false,
            Err(_) => session.link.rollback().await.is_ok(),
        };
        // Otherwise it is dropped without a word, which a dead peer would not hear anyway.
        self.session = usable.then_some(session);
        result
    }
}

impl Central for Postgres {
    async fn handshake(&mut self, host: &HostRegistration) -> Result<Accepted, CentralError> {
        (self.session, self.listener) = (None, None);
        let mut link = Link::open(&self.options, host.host_id).await?;
        let (accepted, shapes) = handshake::handshake(&mut link, host).await?;
        let me = RegisteredHost {
            host_id: host.host_id,
            claim: host.claim,
            own_claims: host.own_claims.clone(),
            name: host.machine.clone(),
            former_names: accepted.former_names.clone(),
            shapes,
        };
        self.session = Some(Session { link, me });
        Ok(accepted)
    }

    async fn push(&mut self, batch: Batch<'_>) -> Result<Vec<RowOutcome>, CentralError> {
        let mut session = self.take()?;
        let result = push::push(&mut session.link, &session.me, batch).await;
        self.settle(session, result).await
    }

    async fn locked_rows(&mut self, ids: &[InstanceId]) -> Result<Vec<InstanceId>, CentralError> {
        let mut session = self.take()?;
        let result = push::locked(&mut session.link, ids).await;
        self.settle(session, result).await
    }

    async fn history_tables(&mut self) -> Result<HistoryTables, CentralError> {
        let mut session = self.take()?;
        let result = records::shapes_now(&mut session.link).await.map(|shapes| {
            session.me.shapes = shapes;
            session.me.shapes.tables.clone()
        });
        self.settle(session, result).await
    }

    fn last_clock(&self) -> Option<Timestamp> {
        self.session.as_ref().and_then(|session| session.link.clock)
    }

    async fn sweep(&mut self, stale_after: Duration, interval: Duration) -> Result<SweepResult, CentralError> {
        let mut session = self.take()?;
        match sweep::sweep(&mut session.link, stale_after, interval).await {
            // Nothing else depends on the sweep: while the connection answers, the link is up.
            Err(error) if session.link.rollback().await.is_ok() => {
                self.session = Some(session);
                Err(CentralError::Reject(Rejection::without_code(error.to_string())))
            }
            result => self.settle(session, result).await,
        }
    }

    async fn pull(&mut self, reading: &Reading) -> Result<Changes, CentralError> {
        let mut session = self.take()?;
        let result = pull::pull(&mut session.link, &session.me, reading).await;
        self.settle(session, result).await
    }

    async fn hosts(&mut self) -> Result<Vec<HostSeen>, CentralError> {
        let mut session = self.take()?;
        let result = pull::hosts(&mut session.link).await;
        self.settle(session, result).await
    }

    async fn listen(&mut self) -> bool {
        self.listener = None;
        let Ok(mut session) = self.take() else { return false };
        let own = session.me.host_id.to_string();
        self.listener = ChangeListener::open(&mut session.link, self.options.connect_timeout, own).await;
        self.session = Some(session);
        self.listener.is_some()
    }

    async fn next_notification(&mut self) -> Notification {
        match &self.listener {
            Some(listener) => listener.next().await,
            None => std::future::pending().await,
        }
    }
}

/// A duration as Postgres takes it.
fn micros_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
