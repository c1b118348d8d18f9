//! Subscriptions to sessions: one thread watches the daemon's changes for all of them.
//!
//! The thread starts with the first subscription. While it has no connection, for example because the daemon restarts, it
//! tries again each second; a change that it may have missed is announced as a change of every session. Changes that
//! follow one another within [`GAP`] are announced once, because a session that works changes several times a second.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::client::{Client, WatchEvent};
use crate::wire::WatchQuery;

/// The most subscriptions of one client.
pub(super) const MAX_SUBSCRIPTIONS: usize = 1000;

const GAP: Duration = Duration::from_millis(250);
const RECONNECT_DELAY: Duration = Duration::from_secs(1);
/// How many changes are kept for a subscription that is busy. If more come, every session counts as changed.
const MAX_QUEUED: usize = 256;

#[derive(Clone, Debug)]
enum Change {
    Session(String),
    /// It is not known which sessions changed.
    Any,
}

/// The source of changes. Clones share the thread.
#[derive(Clone)]
pub(super) struct ChangeWatcher {
    client: Client,
    changes: broadcast::Sender<Change>,
    started: Arc<OnceLock<()>>,
}

impl ChangeWatcher {
    pub(super) fn new(client: Client) -> Self {
        Self { client, changes: broadcast::Sender::new(MAX_QUEUED), started: Arc::default() }
    }

    /// The changes from now on.
    pub(super) fn subscribe(&self) -> ChangeReceiver {
        let receiver = ChangeReceiver(self.changes.subscribe());
        self.started.get_or_init(|| {
            let (client, changes) = (self.client.clone(), self.changes.clone());
            // It ends with the process: a read from the daemon cannot be interrupted.
            thread::spawn(move || watch(&client, &changes));
        });
        receiver
    }
}

fn watch(client: &Client, changes: &broadcast::Sender<Change>) {
    let mut query = WatchQuery::default();
    loop {
        if let Ok(mut stream) = client.watch(&query) {
            if query.after.is_none() {
                let _ = changes.send(Change::Any);
            }
            while let Ok(event) = stream.next_change() {
                query.after.clone_from(&stream.last_id);
                // An error means that nobody is subscribed at present.
                let _ = changes.send(match event {
                    WatchEvent::Session(session) => Change::Session(session.instance_id),
                    WatchEvent::Reset => Change::Any,
                });
            }
        }
        thread::sleep(RECONNECT_DELAY);
    }
}

/// The changes that one client receives.
pub(super) struct ChangeReceiver(broadcast::Receiver<Change>);

impl ChangeReceiver {
    /// Waits for a change, and returns all that follow it closely. Cancel safe until the first change.
    pub(super) async fn next(&mut self) -> ChangedSessions {
        let mut changed = ChangedSessions::default();
        match self.0.recv().await {
            Ok(change) => changed.add(change),
            Err(RecvError::Lagged(_)) => changed.add(Change::Any),
            // The watcher has a sender for as long as the server lives.
            Err(RecvError::Closed) => return std::future::pending().await,
        }
        tokio::time::sleep(GAP).await;
        loop {
            match self.0.try_recv() {
                Ok(change) => changed.add(change),
                Err(TryRecvError::Lagged(_)) => changed.add(Change::Any),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return changed,
            }
        }
    }
}

/// The sessions that changed within a short time.
#[derive(Debug, Default)]
pub(super) struct ChangedSessions {
    ids: BTreeSet<String>,
    any: bool,
}

impl ChangedSessions {
    fn add(&mut self, change: Change) {
        match change {
            Change::Session(id) => {
                self.ids.insert(id);
            }
            Change::Any => self.any = true,
        }
    }

    /// Whether this session may have changed.
    pub(super) fn contains(&self, instance_id: &str) -> bool {
        self.any || self.ids.contains(instance_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_that_follow_closely_are_announced_once() {
        let (sender, receiver) = broadcast::channel(2);
        let mut receiver = ChangeReceiver(receiver);
        let session = |id: &str| Change::Session(id.to_owned());
        sender.send(session("a")).unwrap();
        sender.send(session("b")).unwrap();
        let changed = receiver.next().await;
        assert!(changed.contains("a") && changed.contains("b") && !changed.contains("c"));
        for id in ["a", "a", "a"] {
            sender.send(session(id)).unwrap();
        }
        assert!(receiver.next().await.contains("c"), "which ones were missed is not known");
        sender.send(Change::Any).unwrap();
        assert!(receiver.next().await.contains("d"));
    }
}
