//! Server-sent events: an event says that something changed, and the browser asks for what it shows.
//!
//! A burst of changes is one event: after each, a stream pauses for a fifth of a second, and longer with many sessions,
//! because each event has a browser ask for its window again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Response, StatusCode, header};
use futures_util::stream::unfold;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::routes::{Site, content, text};
use crate::shutdown::Shutdown;

/// How often a comment shows that the connection is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The pause after an event.
const PAUSE: Duration = Duration::from_millis(200);
/// So much longer is the pause for each session.
const PAUSE_OF_SESSION: Duration = Duration::from_micros(20);

struct EventStream {
    site: Arc<Site>,
    changes: watch::Receiver<u64>,
    shutdown: Shutdown,
    begins: bool,
    _slot: OwnedSemaphorePermit,
}

/// A stream of events, until the browser leaves or the server ends.
pub(super) fn stream(site: &Arc<Site>, shutdown: Shutdown) -> Response<Body> {
    let Ok(slot) = site.streams.clone().try_acquire_owned() else {
        let mut response = text(StatusCode::SERVICE_UNAVAILABLE, "Too many pages are open.\n");
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        return response;
    };
    let changes = site.fleet.changes();
    let stream = EventStream { site: site.clone(), changes, shutdown, begins: true, _slot: slot };
    content("text/event-stream", Body::from_stream(unfold(stream, EventStream::next)))
}

impl EventStream {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if std::mem::take(&mut self.begins) {
            return Some((Ok(Bytes::from_static(b"retry: 1000\n\nevent: change\ndata: 0\n\n")), self));
        }
        self.pause().await;
        let event = tokio::select! {
            changed = self.changes.changed() => {
                changed.ok()?;
                let number = *self.changes.borrow_and_update();
                format!("event: change\ndata: {number}\n\n")
            }
            () = tokio::time::sleep(KEEP_ALIVE) => ": alive\n\n".to_owned(),
            () = self.shutdown.requested() => return None,
        };
        Some((Ok(event.into()), self))
    }

    async fn pause(&mut self) {
        let sessions = u32::try_from(self.site.fleet.lock().len()).unwrap_or(u32::MAX);
        tokio::select! {
            () = tokio::time::sleep(PAUSE + PAUSE_OF_SESSION * sessions) => {}
            () = self.shutdown.requested() => {}
        }
    }
}
