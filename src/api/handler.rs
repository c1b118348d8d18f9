//! Handles a request of any route: time limit, response budget and metrics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use tower::ServiceExt;

use super::router::router;
use super::{Api, ApiError, MAX_BODY};
use crate::wire::ErrorCode;

/// How long one request may take, including its body and its wait for the store's writer.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a request for an unknown session waits for the import of spooled requests.
const IMPORT_WAIT: Duration = Duration::from_secs(10);

/// The router, with a time limit for each request, a memory limit for the responses, and a count of them. Clones share
/// everything.
///
/// These are not layers of the router, because each layer costs a request two allocations and a copy of the route.
#[derive(Clone)]
pub struct RequestHandler {
    routes: Router,
    api: Arc<Api>,
}

impl RequestHandler {
    /// The routes over this daemon's parts.
    pub fn new(api: Arc<Api>) -> Self {
        Self { routes: router(api.clone()), api }
    }

    /// A session that a client registered while no daemon ran may not be imported yet: a request that does not find its
    /// session is repeated once the requests that were spooled before the start are imported.
    async fn handle_during_import(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let body = match to_bytes(body, MAX_BODY).await {
            Ok(body) => body,
            Err(_) => {
                let message = format!("the body is larger than {MAX_BODY} bytes, or incomplete");
                return ApiError::new(ErrorCode::TooLarge, message, "send less; nothing was recorded").into_response();
            }
        };
        let attempt = || route(&self.routes, Request::from_parts(parts.clone(), Body::from(body.clone())));
        let first = attempt().await;
        if first.status() != StatusCode::NOT_FOUND {
            return first;
        }
        let mut imported = self.api.imported.clone();
        let waited = tokio::time::timeout(IMPORT_WAIT, imported.wait_for(|imported| *imported)).await;
        let is_imported = matches!(waited, Ok(Ok(_)));
        // The result borrows the watched value, which must not be held while the request is repeated.
        drop(waited);
        if is_imported { attempt().await } else { first }
    }

    /// The response to a request, which must have a [`super::Peer`] in its extensions.
    pub async fn handle(self, request: Request) -> Response {
        let (method, began) = (known_method(request.method()), Instant::now());
        let may_be_spooled = !*self.api.imported.borrow() && names_session(request.uri().path());
        let handling = async {
            if may_be_spooled { self.handle_during_import(request).await } else { route(&self.routes, request).await }
        };
        let response = match tokio::time::timeout(REQUEST_TIMEOUT, handling).await {
            Ok(response) => response,
            Err(_) => ApiError::new(
                ErrorCode::Timeout,
                format!("the request took longer than {} s", REQUEST_TIMEOUT.as_secs()),
                "it may or may not have been recorded; check, and send it again",
            )
            .into_response(),
        };
        let response = self.api.response_budget.count(response).await;
        self.api.metrics.count_response(method, response.status().as_u16(), began.elapsed());
        response
    }
}

async fn route(routes: &Router, request: Request) -> Response {
    match routes.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Whether a path names a session, which may still be in the spool.
fn names_session(path: &str) -> bool {
    path.starts_with("/v1/sessions/")
}

/// The method as a metrics label, of which there is a fixed set.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}
