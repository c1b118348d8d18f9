//! The routes of docs/contract.md.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{MethodRouter, get};

use super::{Api, MAX_BODY, error, routes};

/// Lists each route once: the router serves it, and the OpenAPI document describes it.
macro_rules! routes {
    ($($path:literal: $($method:ident $module:ident::$handler:ident),+;)+) => {
        fn described_routes() -> Router<Arc<Api>> {
            Router::new()$(.route($path, MethodRouter::new()$(.$method(routes::$module::$handler))+))+
        }

        /// What the handlers say of themselves.
        #[derive(utoipa::OpenApi)]
        #[openapi(
            info(
                title = "sessiond",
                description = "The record of AI coding sessions on this machine. HTTP/1.1 and JSON over a Unix socket."
            ),
            paths($($(routes::$module::$handler),+),+)
        )]
        pub(super) struct Handlers;

        /// The paths with their methods.
        #[cfg(test)]
        pub(super) const ROUTES: &[(&str, &[&str])] = &[$(($path, &[$(stringify!($method)),+])),+];
    };
}

routes! {
    "/v1/sessions": get sessions::list, post sessions::register;
    "/v1/sessions/{id}": get sessions::show;
    "/v1/sessions/{id}/heartbeat": post sessions::heartbeat;
    "/v1/sessions/{id}/close": post sessions::close;
    "/v1/sessions/{id}/footer": get sessions::footer;
    "/v1/sessions/{id}/work": get work::show, put work::record;
    "/v1/sessions/{id}/activity": get activity::list;
    "/v1/activity/hours": get activity::hours;
    "/v1/agents": post agents::report;
    "/v1/sessions/{id}/context": get resume::context;
    "/v1/resume": post resume::resume;
    "/v1/sessions/{id}/events": get history::events, post history::add_event;
    "/v1/sessions/{id}/commands": get history::commands, post history::add_command;
    "/v1/sessions/{id}/checkpoints": get history::checkpoints, post history::add_checkpoint;
    "/v1/watch": get watch::watch;
    "/v1/notifications": get notifications::watch;
    "/v1/notifications/test": post notifications::test;
    "/v1/machines": get machines::list;
    "/v1/conflicts": get conflicts::list;
    "/v1/limits": get limits::list;
    "/v1/status": get daemon::status;
    "/v1/sync": post daemon::sync;
    "/v1/parked": get parked::list;
    "/v1/parked/retry": post parked::retry;
    "/v1/parked/drop": post parked::drop;
    "/v1/identity": get identity::show;
    "/v1/identity/rename": post identity::rename;
    "/v1/identity/replace": post identity::replace;
    "/metrics": get daemon::metrics;
}

/// All routes, with their limits and the answers to everything else.
pub(super) fn router(api: Arc<Api>) -> Router {
    described_routes()
        .route("/v1/openapi.json", get(routes::daemon::openapi))
        .fallback(error::no_such_route)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(api)
}
