//! Notifications: a stream for the desktops of users, and a test.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::oneshot;

use crate::api::extract::Peer;
use crate::api::json::Json;
use crate::api::{Api, ApiError};
use crate::wire::{ChannelTestBody, ErrorBody, ErrorCode, NotificationBody};

/// How often an empty line is sent, so that both ends notice a connection that is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Watch the notifications for desktops: an event `notification` for each. Those that are missed are not sent again.
#[utoipa::path(get, path = "/v1/notifications", responses(
    (status = 200, description = "events `notification`; the data of each is one", body = NotificationBody,
        content_type = "text/event-stream")))]
pub(crate) async fn watch(State(api): State<Arc<Api>>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let receiver = api.notifications.desktop.subscribe();
    let greeting = Some(Event::default().comment("watching"));
    let events = unfold((greeting, receiver, api.shutdown.clone()), |(greeting, mut receiver, mut shutdown)| async {
        if let Some(greeting) = greeting {
            return Some((Ok(greeting), (None, receiver, shutdown)));
        }
        loop {
            let received = tokio::select! {
                received = receiver.recv() => received,
                () = shutdown.requested() => return None,
            };
            match received {
                Ok(notification) => {
                    let Ok(event) = Event::default().event("notification").json_data(&notification) else { continue };
                    return Some((Ok(event), (None, receiver, shutdown)));
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

/// Send a test notification to each rule's channel, and return the results. Allowed for root and the daemon's user.
#[utoipa::path(post, path = "/v1/notifications/test", responses(
    (status = 200, body = Vec<ChannelTestBody>), (status = 403, body = ErrorBody)))]
pub(crate) async fn test(State(api): State<Arc<Api>>, peer: Peer) -> Result<Json<Vec<ChannelTestBody>>, ApiError> {
    peer.require_administrator(&api.daemon)?;
    let (reply, results) = oneshot::channel();
    let is_asked = api.notifications.tests.send(reply).await.is_ok();
    match (is_asked, results.await) {
        (true, Ok(results)) => Ok(Json(results)),
        _ => Err(ApiError::new(ErrorCode::Unavailable, "the notifier does not run", "restart the daemon")),
    }
}
