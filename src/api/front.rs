//! What happens to each request, whichever route it takes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use tower::ServiceExt;

use super::{Api, ApiError, MAX_BODY, router};
use crate::wire::ErrorCode;

/// How long one request may take, its body and its wait for the writer included.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a request for a session that is not known waits for the spooled requests to be imported.
const IMPORT_WAIT: Duration = Duration::from_secs(10);

/// The routes, with each request bounded in time, each answer in memory and counted. Clones share everything.
///
/// No layer of the router: each of those costs a request two boxes and a copy of the route.
#[derive(Clone)]
pub struct Front {
    routes: Router,
    api: Arc<Api>,
}

impl Front {
    pub fn new(api: Arc<Api>) -> Self {
        Self { routes: router(api.clone()), api }
    }

    /// A session that a client registered while no daemon ran may not be imported yet when it is asked for: a request
    /// that does not find it is tried again once all that waited is imported.
    async fn answer_after_import(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let body = match to_bytes(body, MAX_BODY).await {
            Ok(body) => body,
            Err(_) => {
                let message = format!("the body is larger than {MAX_BODY} bytes, or broke off");
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
        // What it answers borrows the state, which must not be held while the request is tried again.
        drop(waited);
        if is_imported { attempt().await } else { first }
    }

    pub async fn answer(self, request: Request) -> Response {
        let method = known_method(request.method());
        let waits_for_import = !*self.api.imported.borrow() && names_session(request.uri().path());
        let answering = async {
            if waits_for_import { self.answer_after_import(request).await } else { route(&self.routes, request).await }
        };
        let response = match tokio::time::timeout(REQUEST_TIMEOUT, answering).await {
            Ok(response) => response,
            Err(_) => ApiError::new(
                ErrorCode::Timeout,
                format!("the request took longer than {} s", REQUEST_TIMEOUT.as_secs()),
                "it may or may not have been recorded; look, and send it again",
            )
            .into_response(),
        };
        let response = self.api.unread.count(response).await;
        self.api.metrics.answered(method, response.status().as_u16());
        response
    }
}

async fn route(routes: &Router, request: Request) -> Response {
    match routes.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Whether a path is that of one session, which may still wait in the spool.
fn names_session(path: &str) -> bool {
    path.starts_with("/v1/sessions/")
}

/// Methods are free text from outside; labels are not.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}
