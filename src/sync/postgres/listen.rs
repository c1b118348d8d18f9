//! Notifications of changes, over a connection of its own: one that listens cannot run statements meanwhile.
//!
//! Triggers in central send one notification per transaction on the channel `sessiond`, with the host id of the
//! daemon that made the change, if one did; a handshake sends one with the prefix [`HOST_JOINED`]. A notification only
//! saves time: what it reports, or what is lost with the connection, is read by the next pull all the same.
//!
//! A pooler in transaction mode would subscribe a connection that another client uses next. It is detected by
//! the server processes: two direct connections have one each, always the same.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use super::link::{Access, Link, column};
use super::sql;
use crate::sync::central::{CentralError, Notification};

/// The channel of the triggers' notifications.
const CHANNEL: &str = "sessiond";

/// After so long without a notification the server is queried: a connection that a router has dropped
/// would stay silent for ever.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);

/// The prefix of a notification that a daemon sends in its handshake.
pub(super) const HOST_JOINED: &str = "host ";

/// A subscription. Ends when it is dropped, or when its connection is lost.
#[derive(Debug)]
pub(super) struct ChangeListener {
    inbox: Arc<Inbox>,
    task: JoinHandle<()>,
}

/// What was received and not yet returned.
#[derive(Debug, Default)]
struct Inbox {
    received: Notify,
    /// Others changed sessions.
    sessions_changed: AtomicBool,
    joined: Mutex<Joined>,
    connection_lost: AtomicBool,
}

/// The hosts that joined and were not reported yet.
#[derive(Debug, Default)]
enum Joined {
    #[default]
    None,
    Hosts(BTreeSet<Uuid>),
    /// More than are kept.
    Many,
}

/// So many hosts that joined are kept one by one.
const MAX_JOINED: usize = 100;

impl Joined {
    /// Adds a host by its id, which any client may have sent.
    fn add(&mut self, id: &str) {
        let mut hosts = match std::mem::take(self) {
            Self::None => BTreeSet::new(),
            Self::Hosts(hosts) => hosts,
            Self::Many => return *self = Self::Many,
        };
        hosts.extend(Uuid::parse_str(id).ok());
        *self = if hosts.len() > MAX_JOINED { Self::Many } else { Self::Hosts(hosts) };
    }

    fn take(&mut self) -> Option<Vec<Uuid>> {
        match std::mem::take(self) {
            Self::None => None,
            Self::Hosts(hosts) => Some(hosts.into_iter().collect()).filter(|hosts: &Vec<_>| !hosts.is_empty()),
            Self::Many => Some(Vec::new()),
        }
    }
}

impl Inbox {
    fn joined(&self) -> MutexGuard<'_, Joined> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ChangeListener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ChangeListener {
    /// Opens the second connection and subscribes. `None` if central cannot notify, or refuses the connection.
    /// `own_id`: this host's id; notifications of its own changes are ignored.
    pub(super) async fn open(link: &mut Link, limit: Duration, own_id: String) -> Option<Self> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(limit)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_lazy_with(link.login().clone());
        let opening = async {
            let mut listener = PgListener::connect_with(&pool).await.ok()?;
            listener.eager_reconnect(false);
            let process = direct_process(link, &mut listener).await.ok()??;
            listener.listen(CHANNEL).await.ok()?;
            Some((listener, process))
        };
        let (listener, process) = timeout(limit, opening).await.ok().flatten()?;
        let inbox = Arc::new(Inbox::default());
        let task = tokio::spawn(receive(listener, process, limit, inbox.clone(), own_id));
        Some(Self { inbox, task })
    }

    /// Returns the next notification; never again after [`Notification::ConnectionLost`].
    pub(super) async fn next(&self) -> Notification {
        self.inbox.received.notified().await;
        if self.inbox.connection_lost.load(Ordering::Acquire) {
            return Notification::ConnectionLost;
        }
        let Some(hosts) = self.inbox.joined().take() else {
            self.inbox.sessions_changed.store(false, Ordering::Release);
            return Notification::SessionsChanged;
        };
        if self.inbox.sessions_changed.swap(false, Ordering::AcqRel) {
            // Reported by the next call.
            self.inbox.received.notify_one();
        }
        Notification::HostsJoined(hosts)
    }
}

async fn receive(mut listener: PgListener, process: i32, limit: Duration, inbox: Arc<Inbox>, own_id: String) {
    loop {
        match timeout(SILENCE_LIMIT, listener.try_recv()).await {
            Ok(Ok(Some(notification))) => match notification.payload().strip_prefix(HOST_JOINED) {
                Some(host) if host == own_id => {}
                Some(host) => {
                    inbox.joined().add(host);
                    inbox.received.notify_one();
                }
                None if notification.payload() == own_id => {}
                None => {
                    inbox.sessions_changed.store(true, Ordering::Release);
                    inbox.received.notify_one();
                }
            },
            // Silent. Notifications that arrive during this query are kept for the next turn.
            Err(_) if timeout(limit, server_process(&mut listener)).await.ok().flatten() == Some(process) => {}
            Ok(Ok(None) | Err(_)) | Err(_) => break,
        }
    }
    inbox.connection_lost.store(true, Ordering::Release);
    inbox.received.notify_one();
}

/// The server process of the listener, if both connections are direct. A pooler in transaction mode gives the process
/// that one connection has just released to the other.
async fn direct_process(link: &mut Link, listener: &mut PgListener) -> Result<Option<i32>, CentralError> {
    link.begin_reading(Access::Read).await?;
    let of_link =
        link.rows(sqlx::query(sql::SERVER_PROCESS)).await?.first().map(|row| column::<i32>(row, 0)).transpose()?;
    let during = server_process(listener).await;
    link.commit().await?;
    let afterwards = server_process(listener).await;
    Ok(afterwards.filter(|_| afterwards == during && afterwards != of_link))
}

async fn server_process(listener: &mut PgListener) -> Option<i32> {
    sqlx::query_scalar(sql::SERVER_PROCESS).persistent(false).fetch_one(listener).await.ok()
}
