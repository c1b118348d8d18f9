//! The parts of the OpenAPI document that are the same for all routes.

use utoipa::openapi::path::Operation;
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, ResponseBuilder};

/// Adds the error responses that any route may give.
pub(super) fn with_common_responses(mut document: OpenApi) -> OpenApi {
    for path in document.paths.paths.values_mut() {
        for operation in [&mut path.get, &mut path.post].into_iter().flatten() {
            add(operation, "403", "This user may not use the socket, or this route.");
            add(operation, "408", "The request or its response took too long.");
            add(operation, "500", "A bug in sessiond; see the daemon's log.");
            add(operation, "503", "Busy, or the disk does not respond; try again after Retry-After.");
            if operation.request_body.is_some() {
                add(operation, "413", "The body is too large; nothing was recorded.");
            }
        }
        if let Some(operation) = &mut path.post {
            add(
                operation,
                "507",
                "The disk, the store (max_size) or the user's share of it is full; nothing was recorded.",
            );
        }
    }
    document
}

fn add(operation: &mut Operation, status: &str, description: &str) {
    let body = Content::new(Some(RefOr::Ref(Ref::from_schema_name("ErrorBody"))));
    let response = ResponseBuilder::new().description(description).content("application/json", body).build();
    operation.responses.responses.entry(status.to_owned()).or_insert_with(|| response.into());
}
