//! JSON responses.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::ApiError;
use crate::domain::text::safe_document;
use crate::wire::ErrorCode;

/// A JSON response without characters that are unsafe to print on a terminal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Json<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_string(&self.0) {
            Ok(document) => ([(header::CONTENT_TYPE, "application/json")], safe_document(document)).into_response(),
            Err(error) => {
                let message = format!("the response cannot be written as JSON: {error}");
                ApiError::new(ErrorCode::Internal, message, "report this; it is a bug in sessiond").into_response()
            }
        }
    }
}
