//! What the document says of all routes alike.

use utoipa::openapi::path::Operation;
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, ResponseBuilder};

/// Adds the answers that do not depend on the route: they come from the way every request takes.
pub fn with_common_answers(mut document: OpenApi) -> OpenApi {
    for path in document.paths.paths.values_mut() {
        for operation in [&mut path.get, &mut path.post].into_iter().flatten() {
            add(operation, "403", "The socket, or this, is not for that user.");
            add(operation, "408", "The request, or its answer, took too long.");
            add(operation, "500", "A bug in sessiond; its log has more.");
            add(operation, "503", "Busy, or the disk does not answer; Retry-After says when to try again.");
            if operation.request_body.is_some() {
                add(operation, "413", "The body is too large; nothing was recorded.");
            }
        }
        if let Some(operation) = &mut path.post {
            add(
                operation,
                "507",
                "The disk, the store's max_size or the user's share of it is full; nothing was recorded.",
            );
        }
    }
    document
}

fn add(operation: &mut Operation, status: &str, description: &str) {
    let body = Content::new(Some(RefOr::Ref(Ref::from_schema_name("ErrorBody"))));
    let answer = ResponseBuilder::new().description(description).content("application/json", body).build();
    operation.responses.responses.entry(status.to_owned()).or_insert_with(|| answer.into());
}
