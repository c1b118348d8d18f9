//! Two threads that report what the daemon says: one watches changes of sessions, one asks for the facts beside them.
//!
//! Sessions are never polled: the watch begins, then all pages of the list are read, so that no change is missed between.
//! A broken watch is begun again with growing pauses. The facts (status, limits, machines) announce no changes: they are
//! asked for when sessions changed, and every [`SLOW_BEAT`].
//!
//! Both threads end with the process: a read from the daemon cannot be interrupted.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use super::Input;
use super::fleet::Facts;
use super::row::Row;
use crate::client::{Client, Result, WatchEvent};
use crate::wire::{ListQuery, MAX_SESSIONS_PER_PAGE, WatchQuery};

/// How often the facts are asked for while nothing changes.
const SLOW_BEAT: Duration = Duration::from_secs(15);
/// The least time between two questions for them.
const FACTS_GAP: Duration = Duration::from_secs(2);
/// The pauses between attempts to reach the daemon.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// What the threads report.
#[derive(Debug)]
pub(super) enum News {
    /// All sessions, after the watch began.
    Sessions(Vec<Row>),
    Changed(Box<Row>),
    /// The watch broke, or could not begin.
    DaemonLost,
    Facts(Box<Facts>),
}

/// The receiver of the news is gone: the view ended.
struct Ended;

/// Reports all sessions and then their changes, while the view lasts.
pub(super) fn watch_sessions(client: Client, news: SyncSender<Input>) {
    thread::spawn(move || {
        let mut pause = FIRST_PAUSE;
        loop {
            match watch_once(&client, &news, &mut pause) {
                Err(Ended) => return,
                Ok(()) if news.send(Input::News(News::DaemonLost)).is_err() => return,
                Ok(()) => {}
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LAST_PAUSE);
        }
    });
}

/// Returns when the connection breaks.
fn watch_once(client: &Client, news: &SyncSender<Input>, pause: &mut Duration) -> std::result::Result<(), Ended> {
    let Ok(mut changes) = client.watch(&WatchQuery::default()) else { return Ok(()) };
    let Ok(rows) = list(client) else { return Ok(()) };
    *pause = FIRST_PAUSE;
    send(news, News::Sessions(rows))?;
    loop {
        match changes.next_change() {
            Ok(WatchEvent::Session(session)) => send(news, News::Changed(Box::new(Row::from(*session))))?,
            Ok(WatchEvent::Reset) => match list(client) {
                Ok(rows) => send(news, News::Sessions(rows))?,
                Err(_) => return Ok(()),
            },
            Err(_) => return Ok(()),
        }
    }
}

fn send(news: &SyncSender<Input>, what: News) -> std::result::Result<(), Ended> {
    news.send(Input::News(what)).map_err(|_| Ended)
}

/// All sessions, page by page.
pub(super) fn list(client: &Client) -> Result<Vec<Row>> {
    let mut query = ListQuery { limit: Some(MAX_SESSIONS_PER_PAGE), ..ListQuery::default() };
    let mut rows = Vec::new();
    loop {
        let page = client.list(&query)?;
        rows.extend(page.instances.into_iter().map(Row::from));
        query.after = page.next;
        if query.after.is_none() {
            return Ok(rows);
        }
    }
}

/// Asks for the facts beside the sessions.
pub(super) fn facts(client: &Client) -> Result<Facts> {
    Ok(Facts { status: client.status()?, limits: client.limits()?, machines: client.machines()? })
}

/// Reports the facts now, whenever `wake` says so, and every [`SLOW_BEAT`].
pub(super) fn watch_facts(client: Client, news: SyncSender<Input>, wake: Receiver<()>) {
    thread::spawn(move || {
        loop {
            if let Ok(facts) = facts(&client)
                && send(&news, News::Facts(Box::new(facts))).is_err()
            {
                return;
            }
            thread::sleep(FACTS_GAP);
            if matches!(wake.recv_timeout(SLOW_BEAT - FACTS_GAP), Err(RecvTimeoutError::Disconnected)) {
                return;
            }
        }
    });
}
