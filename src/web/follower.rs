//! Keeps the fleet current: one watch of the daemon for all browsers, and its status every few seconds.
//!
//! The watch is opened before the sessions are listed, so that no change is missed. When the connection breaks, what is
//! known stays, with its age, and the daemon is tried again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::fleet::{Fleet, Rows};
use crate::client::{Client, WatchEvent};
use crate::clock::Clock;
use crate::wire::{ErrorDetail, ListQuery, MAX_SESSIONS_PER_PAGE, WatchQuery};

/// The daemon sends a comment every 15 seconds.
const WATCH_TIMEOUT: Duration = Duration::from_secs(40);
/// How long the daemon may take for its status before it counts as away.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the status and the machines are read.
const STATUS_INTERVAL: Duration = Duration::from_secs(3);
/// How long to wait before the daemon is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How often all sessions are listed again: some turn stale by time alone.
const LIST_INTERVAL: Duration = Duration::from_secs(60);
/// So much is added to that for each session.
const LIST_INTERVAL_OF_SESSION: Duration = Duration::from_millis(20);

/// The fleet as all browsers share it, and the number of its newest change.
#[derive(Clone)]
pub(super) struct SharedFleet {
    fleet: Arc<Mutex<Fleet>>,
    changes: watch::Sender<u64>,
}

impl SharedFleet {
    pub(super) fn lock(&self) -> MutexGuard<'_, Fleet> {
        self.fleet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A receiver of the number of the newest change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn announce(&self) {
        self.changes.send_modify(|number| *number += 1);
    }
}

/// Follows the daemon until the process ends.
pub(super) struct Follower {
    client: Client,
    clock: Clock,
    shared: SharedFleet,
    /// One listing at a time.
    listing: Mutex<()>,
}

impl Follower {
    pub(super) fn start(client: Client, clock: Clock) -> Arc<Self> {
        let shared = SharedFleet { fleet: Arc::default(), changes: watch::channel(0).0 };
        let follower = Arc::new(Self { client, clock, shared, listing: Mutex::new(()) });
        let (watching, checking) = (follower.clone(), follower.clone());
        thread::spawn(move || watching.follow());
        thread::spawn(move || checking.check());
        follower
    }

    pub(super) fn fleet(&self) -> SharedFleet {
        self.shared.clone()
    }

    fn follow(&self) {
        loop {
            let error = match self.watch() {
                Ok(()) => "the daemon closed the connection".to_owned(),
                Err(error) => error.message,
            };
            self.lost(error, false);
            thread::sleep(RETRY);
        }
    }

    /// Applies changes until the connection ends.
    fn watch(&self) -> Result<(), ErrorDetail> {
        let mut changes = self.client.clone().timeout(WATCH_TIMEOUT).watch(&WatchQuery::default())?;
        self.list()?;
        self.shared.lock().set_watched((self.clock)());
        self.shared.announce();
        loop {
            match changes.next_change() {
                Ok(WatchEvent::Session(session)) => {
                    let mut fleet = self.shared.lock();
                    fleet.apply(*session);
                    fleet.set_watched((self.clock)());
                    drop(fleet);
                    self.shared.announce();
                }
                Ok(WatchEvent::Reset) => self.list()?,
                Err(_) => return Ok(()),
            }
        }
    }

    /// Lists all open sessions.
    fn list(&self) -> Result<(), ErrorDetail> {
        let _alone = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.lock().begin_listing();
        let mut rows = Rows::default();
        for status in ["active", "stale"] {
            self.list_status(status, &mut rows)?;
        }
        self.shared.lock().finish_listing(rows);
        self.shared.announce();
        Ok(())
    }

    fn list_status(&self, status: &str, rows: &mut Rows) -> Result<(), ErrorDetail> {
        let status = Some(status.to_owned());
        let mut query = ListQuery { status, limit: Some(MAX_SESSIONS_PER_PAGE), ..ListQuery::default() };
        loop {
            let page = self.client.list(&query)?;
            page.instances.into_iter().for_each(|session| rows.apply(session));
            query.after = page.next;
            if query.after.is_none() {
                return Ok(());
            }
        }
    }

    /// Reads what no change announces.
    fn check(&self) {
        let client = self.client.clone().timeout(STATUS_TIMEOUT);
        let mut listed = Instant::now();
        loop {
            let read = client.status().and_then(|status| Ok((status, client.machines()?)));
            match read {
                Ok((status, machines)) => {
                    let mut fleet = self.shared.lock();
                    let is_new = fleet.set_overview(status, machines, (self.clock)());
                    let sessions = u32::try_from(fleet.len()).unwrap_or(u32::MAX);
                    drop(fleet);
                    if is_new {
                        self.shared.announce();
                    }
                    if listed.elapsed() > LIST_INTERVAL + LIST_INTERVAL_OF_SESSION * sessions && self.list().is_ok() {
                        listed = Instant::now();
                    }
                }
                Err(error) => self.lost(error.message, true),
            }
            thread::sleep(STATUS_INTERVAL);
        }
    }

    fn lost(&self, error: String, is_watched: bool) {
        let is_new = self.shared.lock().set_lost(error, is_watched);
        if is_new {
            self.shared.announce();
        }
    }
}
