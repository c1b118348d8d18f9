//! The Postgres adapter: central as a Postgres database, over one connection and short transactions.
//!
//! **Invariant**: the server's session holds no state between transactions, and no statement has a name. Limits and
//! settings are set per transaction. So a pooler in transaction mode may stand between the daemon and the server.
//!
//! Every round trip has a limit, on this side and on the server's (`link`). After an error that leaves the connection
//! usable, the transaction is rolled back and the connection kept; otherwise it is dropped, and the driver repeats the
//! handshake, which finds out what was applied.
//!
//! | module | purpose |
//! |---|---|
//! | `handshake`, `push`, `records`, `work`, `pull`, `find`, `hosts`, `limits`, `leases`, `sweep`, `listen` | one call of the port each |
//! | `sql`, `parameters` | the statements, each in a file; types of their parameters |
//! | `link`, `connect` | a connection with limits; how it is opened, by libpq's rules |
//! | `capabilities` | what the server can do, and what follows if it cannot |
//! | `errors`, `conflict` | what an error of the server means for sync; messages of identity conflicts |
//! | `migrate`, `zone`, `checkup` | `sessiond migrate` and `sessiond doctor` |

mod activity;
mod capabilities;
mod checkup;
mod conflict;
mod connect;
mod errors;
mod find;
mod handshake;
mod hosts;
mod leases;
mod limits;
mod link;
mod listen;
mod migrate;
mod parameters;
mod pull;
mod push;
mod records;
mod registered_host;
mod sql;
mod sweep;
mod work;
mod zone;

use std::time::Duration;

use uuid::Uuid;

pub use checkup::checkup;
pub use connect::{InvalidOptions, PostgresOptions};
pub use migrate::{MigrateError, MigrateRequest, MigrationReport, MigrationStep, Obstacle, migrate, migrate_with};

use self::handshake::Handshake;
use self::hosts::KnownLimits;
use self::link::Link;
use self::listen::ChangeListener;
use self::registered_host::RegisteredHost;
use super::central::{
    Accepted, Batch, Central, CentralError, HostRegistration, Notification, Rejection, RowOutcome, SweepResult,
};
use crate::domain::limits::AccountLimit;
use crate::domain::mirror::{ChangePage, HostSeen, PullQuery};
use crate::domain::on_demand::{Found, Question};
use crate::domain::{HistoryTables, InstanceId, Timestamp};

/// Central as a Postgres database.
#[derive(Debug)]
pub struct Postgres {
    options: PostgresOptions,
    session: Option<AcceptedConnection>,
    listener: Option<ChangeListener>,
}

/// A connection on which the handshake was accepted.
#[derive(Debug)]
struct AcceptedConnection {
    link: Link,
    host: RegisteredHost,
}

impl Postgres {
    /// A central that is not connected yet.
    pub fn new(options: PostgresOptions) -> Self {
        Self { options, session: None, listener: None }
    }

    /// Takes the session out for the length of a call: a call that is cancelled drops its connection.
    fn take(&mut self) -> Result<AcceptedConnection, CentralError> {
        self.session.take().ok_or_else(|| CentralError::Retry("not connected to central".into()))
    }

    /// Puts the session back if it can still be used.
    async fn put_back<T>(
        &mut self,
        mut session: AcceptedConnection,
        result: Result<T, CentralError>,
    ) -> Result<T, CentralError> {
        let usable = match &result {
            Ok(_) => true,
            Err(CentralError::Retry(_) | CentralError::Conflict(_)) => false,
            Err(_) => session.link.rollback().await.is_ok(),
        };
        // A connection that cannot be used is dropped without closing it: a dead peer would not answer.
        self.session = usable.then_some(session);
        result
    }
}

impl Central for Postgres {
    async fn handshake(&mut self, host: &HostRegistration) -> Result<Accepted, CentralError> {
        (self.session, self.listener) = (None, None);
        let mut link = Link::open(&self.options, host.host_id).await?;
        let Handshake { accepted, shapes, has_stale_after } = handshake::handshake(&mut link, host).await?;
        let registered = RegisteredHost {
            host_id: host.host_id,
            claim: host.claim,
            own_claims: host.own_claims.clone(),
            name: host.machine.clone(),
            former_names: accepted.former_names.clone(),
            shapes,
            has_stale_after,
            marks_changes_only: accepted.marks_changes_only,
            known_limits: KnownLimits::new(),
        };
        self.session = Some(AcceptedConnection { link, host: registered });
        Ok(accepted)
    }

    async fn push(&mut self, batch: Batch<'_>) -> Result<Vec<RowOutcome>, CentralError> {
        let mut session = self.take()?;
        let result = push::push(&mut session.link, &session.host, batch).await;
        self.put_back(session, result).await
    }

    async fn locked_rows(&mut self, ids: &[InstanceId]) -> Result<Vec<InstanceId>, CentralError> {
        let mut session = self.take()?;
        let result = push::locked_rows(&mut session.link, ids).await;
        self.put_back(session, result).await
    }

    async fn history_tables(&mut self) -> Result<HistoryTables, CentralError> {
        let mut session = self.take()?;
        let result = records::shapes_now(&mut session.link).await.map(|shapes| {
            session.host.shapes = shapes;
            session.host.shapes.tables.clone()
        });
        self.put_back(session, result).await
    }

    fn last_clock(&self) -> Option<Timestamp> {
        self.session.as_ref().and_then(|session| session.link.last_clock)
    }

    async fn missing_triggers(&mut self) -> Result<Vec<String>, CentralError> {
        let mut session = self.take()?;
        let result = capabilities::missing_triggers_now(&mut session.link).await;
        self.put_back(session, result).await
    }

    fn marks_heartbeats(&self) -> bool {
        self.session.as_ref().is_none_or(|session| !session.link.heartbeats_unmarked)
    }

    async fn sweep(&mut self, stale_after: Duration, interval: Duration) -> Result<SweepResult, CentralError> {
        let mut session = self.take()?;
        match sweep::sweep(&mut session.link, &session.host, stale_after, interval).await {
            // Nothing else depends on the sweep: while the connection answers, the link is up.
            Err(error) if session.link.rollback().await.is_ok() => {
                self.session = Some(session);
                Err(CentralError::Reject(Rejection::without_code(error.to_string())))
            }
            result => self.put_back(session, result).await,
        }
    }

    async fn pull(&mut self, reading: &PullQuery) -> Result<ChangePage, CentralError> {
        let mut session = self.take()?;
        let result = pull::pull(&mut session.link, &session.host, reading).await;
        self.put_back(session, result).await
    }

    async fn find(&mut self, question: &Question) -> Result<Found, CentralError> {
        let mut session = self.take()?;
        let result = find::find(&mut session.link, &session.host, question).await;
        self.put_back(session, result).await
    }

    async fn share_limits(&mut self, limits: &[AccountLimit]) -> Result<(), CentralError> {
        let mut session = self.take()?;
        let result = limits::share(&mut session.link, &session.host, limits).await;
        self.put_back(session, result).await
    }

    async fn take_leases(&mut self, names: &[String], length: Duration) -> Result<Vec<String>, CentralError> {
        let mut session = self.take()?;
        let result = leases::take(&mut session.link, &session.host, names, length).await;
        self.put_back(session, result).await
    }

    async fn hosts(&mut self, only: Option<&[Uuid]>) -> Result<Vec<HostSeen>, CentralError> {
        let mut session = self.take()?;
        let result = hosts::hosts(&mut session.link, &mut session.host, only).await;
        self.put_back(session, result).await
    }

    async fn disown(&mut self, ids: &[InstanceId]) -> Result<(), CentralError> {
        let mut session = self.take()?;
        let result = push::disown(&mut session.link, &session.host, ids).await;
        self.put_back(session, result).await
    }

    async fn listen(&mut self) -> bool {
        self.listener = None;
        let Ok(mut session) = self.take() else { return false };
        let own = session.host.host_id.to_string();
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
