//! Each change of any session, as it happens: server-sent events.

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
/// So often a line says that the connection still stands.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a client waits before it connects again.
const RETRY: Duration = Duration::from_secs(1);

/// Watch sessions change, on this machine and on all others: an event `session` for each change, with the session
/// as it is by then. `Last-Event-ID`, or `after`, goes on from where a connection broke; where that is too long
/// ago, an event `reset` says so, and the sessions are to be listed anew.
#[utoipa::path(get, path = "/v1/watch", params(WatchQuery), responses(
    (status = 200, description = "events `session` and `reset`; the data of `session` is one", body = SessionBody,
        content_type = "text/event-stream"),
    (status = 400, body = ErrorBody)))]
pub async fn watch(
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
        None => Start::At(*newest.borrow()),
        Some(given) => seen(&api, given).map_or(Start::Anew, Start::At),
    };
    let events = Events { newest, filter, seen: 0, ready: VecDeque::new(), api };
    Ok(Sse::new(unfold(events.starting(start), Events::next)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

enum Start {
    At(u64),
    Anew,
}

/// The number in an id of an event of this daemon's life.
fn seen(api: &Api, id: &str) -> Option<u64> {
    let (life, number) = id.split_once('-')?;
    (life == self::life(api)).then(|| number.parse().ok()).flatten()
}

/// Tells this daemon's life from the others: numbers begin anew with each.
fn life(api: &Api) -> String {
    format!("{:x}", api.about.started_at.micros())
}

struct Events {
    api: Arc<Api>,
    newest: watch::Receiver<u64>,
    filter: Filter,
    /// The newest change that has been told.
    seen: u64,
    ready: VecDeque<Event>,
}

impl Events {
    fn starting(mut self, start: Start) -> Self {
        match start {
            Start::At(seen) => self.seen = seen,
            Start::Anew => self.reset(),
        }
        // Headers alone do not tell a client that it is heard.
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
                news = self.newest.wait_for(|newest| *newest != self.seen) => { news.ok()?; }
                () = shutdown.requested() => return None,
            }
            self.read().await;
        }
    }

    /// Reads what changed since.
    async fn read(&mut self) {
        match self.api.store.changed_after(self.seen, PAGE).await {
            Ok(Some((covered, records))) => {
                self.seen += covered;
                let told = records.iter().filter(|(_, record)| self.filter.fits(record));
                self.ready = told.filter_map(|(number, record)| self.event(*number, record)).collect();
            }
            Ok(None) => self.reset(),
            // The store is being rebuilt; the next change comes once it is there.
            Err(error) => {
                tracing::warn!(%error, "changes could not be read for somebody who watches");
                self.reset();
            }
        }
    }

    fn reset(&mut self) {
        self.seen = *self.newest.borrow_and_update();
        self.ready.push_back(Event::default().event("reset").id(self.id(self.seen)).data("{}"));
    }

    fn event(&self, number: u64, record: &Record) -> Option<Event> {
        let body = sessions::body(&self.api, record, (self.api.clock)());
        Event::default().event("session").id(self.id(number)).json_data(body).ok()
    }

    fn id(&self, number: u64) -> String {
        format!("{}-{number}", life(&self.api))
    }
}
