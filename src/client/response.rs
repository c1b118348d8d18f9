//! What a response says: its body, or the daemon's error.

use serde::de::DeserializeOwned;

use super::{Resolved, Result};
use crate::wire::{ErrorBody, ErrorCode, ErrorDetail};

pub(super) const fn is_success(status: u16) -> bool {
    matches!(status, 200..=299)
}

pub(super) fn success<T: DeserializeOwned>(status: u16, body: &[u8]) -> Result<T> {
    if is_success(status) { from_json(body) } else { Err(daemon_error(status, body)) }
}

pub(super) fn resolved<T: DeserializeOwned>(status: u16, body: &[u8]) -> Result<Resolved<T>> {
    match status {
        300 => from_json(body).map(Resolved::Several),
        _ => success(status, body).map(|one| Resolved::One(Box::new(one))),
    }
}

pub(super) fn text(body: Vec<u8>) -> Result<String> {
    String::from_utf8(body).map_err(|_| invalid_response("it is not UTF-8"))
}

pub(super) fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| invalid_response(&error.to_string()))
}

/// The error in the body of a response, or one that names the status if the body has none.
pub(super) fn daemon_error(status: u16, body: &[u8]) -> ErrorDetail {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(body) => body.error,
        Err(_) => ErrorDetail {
            code: ErrorCode::Internal,
            message: format!("the daemon returned status {status} without an explanation"),
            hint: "check its log; client and daemon may have different versions".to_owned(),
        },
    }
}

pub(super) fn invalid_response(why: &str) -> ErrorDetail {
    ErrorDetail {
        code: ErrorCode::Internal,
        message: format!("the daemon's response cannot be read: {why}"),
        hint: "check that the socket is sessiond's and that client and daemon have the same version".to_owned(),
    }
}
