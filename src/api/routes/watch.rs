//! Changes of sessions as server-sent events.
//!
//! The store numbers changes from the daemon's start; an event's id is the daemon's start time and that number. A
//! client that reconnects with the last id it saw gets all changes since. Where the id is of an earlier start, or the
//! store does not keep the changes since then any more, the client gets an event `reset` and lists the sessions again.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::watch;

use super::sessions;
use crate::api::extract::Params;
use crate::api::{Api, ApiError};
use crate::store::{Filter, Record};
use crate::wire::{ErrorBody, SessionBody, WatchQuery};

/// How many changes are read at once.
const PAGE: usize = 100;
/// How often a comment shows that the connection is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a client waits before it connects again.
const RETRY: Duration = Duration::from_secs(1);

/// Watch changes of sessions on all machines: an event `session` for each change, with the session's state when it is
/// sent. `Last-Event-ID` or `after` continues after the last event of an earlier connection; where changes since then
/// are not kept any more, an event `reset` is sent, and the client must list the sessions again.
#[utoipa::path(get, path = "/v1/watch", params(WatchQuery), responses(
    (status = 200, description = "events `session` and `reset`; the data of `session` is one", body = SessionBody,
        content_type = "text/event-stream"),
    (status = 400, body = ErrorBody)))]
pub(crate) async fn watch(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    Params(query): Params<WatchQuery>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let filter = Filter {
        local: query.local == Some(true),
        ..sessions::filter_by(query.project.as_deref(), query.machine.as_deref())?
    };
    let given = headers.get("last-event-id").and_then(|id| id.to_str().ok()).or(query.after.as_deref());
    let newest = api.store.changes().newest();
    let start = match given {
        None => Start::After(*newest.borrow()),
        Some(given) => change_number(&api, given).map_or(Start::Reset, Start::After),
    };
    let stream = EventStream { newest, filter, last_sent: 0, ready: VecDeque::new(), api };
    let events = unfold(stream.starting(start), EventStream::next);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// Where a stream begins.
enum Start {
    /// After the change with this number.
    After(u64),
    /// With an event `reset`.
    Reset,
}

/// The change's number in an event's id; `None` if the id is not from this run of the daemon.
fn change_number(api: &Api, id: &str) -> Option<u64> {
    let (run, number) = id.split_once('-')?;
    (run == run_id(api)).then(|| number.parse().ok()).flatten()
}

/// Identifies this run of the daemon; each run numbers its changes from 0.
fn run_id(api: &Api) -> String {
    format!("{:x}", api.daemon.started_at.micros())
}

struct EventStream {
    api: Arc<Api>,
    newest: watch::Receiver<u64>,
    filter: Filter,
    /// The number of the newest change that has been sent.
    last_sent: u64,
    ready: VecDeque<Event>,
}

impl EventStream {
    fn starting(mut self, start: Start) -> Self {
        match start {
            Start::After(number) => self.last_sent = number,
            Start::Reset => self.reset(),
        }
        // Some clients report the connection as open only once the body begins.
        self.ready.push_front(Event::default().comment("watching").retry(RETRY));
        self
    }

    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some((Ok(event), self));
            }
            let mut shutdown = self.api.shutdown.clone();
            tokio::select! {
                newest = self.newest.wait_for(|newest| *newest != self.last_sent) => { newest.ok()?; }
                () = shutdown.requested() => return None,
            }
            self.read_changes().await;
        }
    }

    /// Reads the next changes.
    async fn read_changes(&mut self) {
        match self.api.store.changed_after(self.last_sent, PAGE).await {
            Ok(Some((covered, records))) => {
                self.last_sent += covered;
                let matching = records.iter().filter(|(_, record)| self.filter.fits(record));
                self.ready = matching.filter_map(|(number, record)| self.event(*number, record)).collect();
            }
            Ok(None) => self.reset(),
            // The store is being rebuilt; the next change is announced after that.
            Err(error) => {
                tracing::warn!(%error, "changes could not be read for a client that watches them");
                self.reset();
            }
        }
    }

    fn reset(&mut self) {
        self.last_sent = *self.newest.borrow_and_update();
        self.ready.push_back(Event::default().event("reset").id(self.id(self.last_sent)).data("{}"));
    }

    fn event(&self, number: u64, record: &Record) -> Option<Event> {
        let body = sessions::body(&self.api, record, (self.api.clock)());
        Event::default().event("session").id(self.id(number)).json_data(body).ok()
    }

    fn id(&self, number: u64) -> String {
        format!("{}-{number}", run_id(&self.api))
    }
}
