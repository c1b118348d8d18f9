//! The OpenAPI document.
//!
//! The daemon serves the file of docs/, because the code that describes every type takes as much room in the program as
//! all of sync. The file is written by `cargo run --example openapi`, and a test compares it with the types.

use serde_json::Value;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, ResponseBuilder};

use super::router::Handlers;

/// What `GET /v1/openapi.json` answers.
pub(super) const DOCUMENT: &str = include_str!("../../docs/openapi.json");

/// Describes the API as its handlers and types are now, as JSON with a line for each method and each type.
pub fn describe() -> String {
    let document = with_common_parts(<Handlers as utoipa::OpenApi>::openapi());
    in_lines(&serde_json::to_value(document).unwrap_or_default(), 0) + "\n"
}

/// The value with the members of its objects on lines of their own, down to a type or a method.
fn in_lines(value: &Value, depth: usize) -> String {
    match value {
        Value::Object(members) if depth < 3 => {
            let line = |(name, value)| format!("{}: {}", Value::from(String::clone(name)), in_lines(value, depth + 1));
            format!("{{\n{}\n}}", members.iter().map(line).collect::<Vec<_>>().join(",\n"))
        }
        other => other.to_string(),
    }
}

/// Adds a name and a group to each operation, and the error responses that any route may give.
fn with_common_parts(mut document: OpenApi) -> OpenApi {
    for (name, path) in &mut document.paths.paths {
        let words: Vec<_> = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
        for (method, operation) in [("get", &mut path.get), ("post", &mut path.post), ("put", &mut path.put)] {
            let Some(operation) = operation else { continue };
            operation.operation_id = Some(format!("{method}_{}", words.join("_")));
            operation.tags = words.iter().find(|word| **word != "v1").map(|word| vec![(*word).to_owned()]);
            add(operation, "403", "This user may not use the socket, or this route.");
            add(operation, "408", "The request or its response took too long.");
            add(operation, "500", "A bug in sessiond; see the daemon's log.");
            add(operation, "503", "Busy, or the disk does not respond; try again after Retry-After.");
            if operation.request_body.is_some() {
                add(operation, "413", "The body is too large; nothing was recorded.");
            }
            if method != "get" {
                let full = "The disk, the store (max_size) or the user's share of it is full; nothing was recorded.";
                add(operation, "507", full);
            }
        }
    }
    document
}

fn add(operation: &mut Operation, status: &str, description: &str) {
    let body = Content::new(Some(RefOr::Ref(Ref::from_schema_name("ErrorBody"))));
    let response = ResponseBuilder::new().description(description).content("application/json", body).build();
    operation.responses.responses.entry(status.to_owned()).or_insert_with(|| response.into());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::api::router::ROUTES;

    #[test]
    fn served_document_describes_the_api_as_it_is() {
        assert!(describe() == DOCUMENT, "docs/openapi.json is old: cargo run --example openapi > docs/openapi.json");
    }

    #[test]
    fn each_route_is_described_and_each_operation_has_a_name_of_its_own() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        let described = document["paths"].as_object().unwrap();
        let operations: BTreeSet<_> = described
            .iter()
            .flat_map(|(path, item)| {
                item.as_object().unwrap().iter().map(move |(method, operation)| (path, method, operation))
            })
            .map(|(path, method, operation)| {
                (path.as_str(), method.as_str(), operation["operationId"].as_str().unwrap())
            })
            .collect();
        let served: BTreeSet<_> =
            ROUTES.iter().flat_map(|(path, methods)| methods.iter().map(move |m| (*path, *m))).collect();
        assert_eq!(operations.iter().map(|(path, method, _)| (*path, *method)).collect::<BTreeSet<_>>(), served);
        let names: BTreeSet<_> = operations.iter().map(|(.., name)| *name).collect();
        assert_eq!(names.len(), operations.len(), "{names:?}");
    }
}
