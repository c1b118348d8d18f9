//! What happens to each request, whichever route it takes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use tower::ServiceExt;

use super::{Api, ApiError, router};
use crate::wire::ErrorCode;

/// How long one request may take, its body and its wait for the writer included.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

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

    pub async fn answer(self, request: Request) -> Response {
        let method = known_method(request.method());
        let response = match tokio::time::timeout(REQUEST_TIMEOUT, self.routes.oneshot(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
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

/// Methods are free text from outside; labels are not.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}
