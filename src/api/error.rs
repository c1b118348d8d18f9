//! Errors of the API: an HTTP status, and a body with a code, what failed and what to do.

use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use crate::api::json::Json;
use crate::domain::Invalid;
use crate::domain::text::one_line;
use crate::store::{OpenError, StoreError};
use crate::wire::{ErrorBody, ErrorCode, ErrorDetail};

/// The value of Retry-After, in seconds, of the responses 429 and 503.
const RETRY_AFTER: &str = "1";

/// The error response to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError(ErrorDetail);

impl ApiError {
    /// Makes the message one bounded line: what it quotes of a request may be long and have line breaks.
    pub fn new(code: ErrorCode, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self(ErrorDetail { code, message: one_line(&message.into()), hint: hint.into() })
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadRequest, message, "correct the request; /v1/openapi.json describes it")
    }

    pub(crate) fn not_found(searched: &str) -> Self {
        StoreError::NotFound(searched.to_owned()).into()
    }

    /// The code and the lines that the client gets.
    pub fn detail(&self) -> &ErrorDetail {
        &self.0
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(ErrorBody { error: self.0 })).into_response();
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
        }
        response
    }
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> Self {
        Self::bad_request(invalid.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let (code, hint) = match &error {
            StoreError::NotFound(_) => (ErrorCode::NotFound, "`sessiond list` shows the sessions that are known"),
            StoreError::NotParked(_) => (ErrorCode::NotFound, "`sessiond parked list` shows what is parked"),
            StoreError::Closed(_) => (ErrorCode::SessionClosed, "register a new session to continue"),
            StoreError::Elsewhere { .. } => {
                (ErrorCode::SessionElsewhere, "only its own machine changes it; `sessiond resume` continues it here")
            }
            StoreError::Forbidden { .. } => {
                (ErrorCode::Forbidden, "only the user who registered a session, and root, may change it")
            }
            StoreError::NoSuchRecord(_) => (ErrorCode::BadRequest, "give the id of a record as a list shows it"),
            StoreError::KeyReused(_) => {
                (ErrorCode::Conflict, "use a new key for each request, and the same one only to repeat it")
            }
            StoreError::Busy | StoreError::CheckGivenUp => (ErrorCode::Unavailable, "try again in a second"),
            StoreError::Held(_) => (ErrorCode::Unavailable, "nothing was recorded; close that program and try again"),
            StoreError::Full(_) => {
                (ErrorCode::DiskFull, "nothing was recorded; free some space, or raise store.max_size, and try again")
            }
            StoreError::UserFull { .. } => (
                ErrorCode::DiskFull,
                "nothing was recorded; close finished sessions, which are deleted after sessions.keep_closed, or raise store.max_size",
            ),
            StoreError::UserSessions { .. } => {
                (ErrorCode::DiskFull, "nothing was recorded; close finished sessions with `sessiond close ID`")
            }
            StoreError::Io(_) => (ErrorCode::Unavailable, "nothing was recorded; check the disk and the daemon's log"),
            StoreError::Damaged(_) => {
                (ErrorCode::Unavailable, "nothing was recorded; the store is being rebuilt, try again in a second")
            }
            StoreError::Bug(_) => (ErrorCode::Internal, "this is a bug in sessiond; the daemon's log has more"),
        };
        if matches!(code, ErrorCode::Internal | ErrorCode::Unavailable | ErrorCode::DiskFull) {
            tracing::warn!(%error, "a request failed");
        }
        Self::new(code, error.to_string(), hint)
    }
}

/// The identity could not be changed, because the state folder cannot be written.
impl From<OpenError> for ApiError {
    fn from(error: OpenError) -> Self {
        Self::new(ErrorCode::Unavailable, error.to_string(), "check the state folder's disk and permissions")
    }
}

pub(super) async fn no_such_route(uri: Uri) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("there is no route {}", uri.path()), "see /v1/openapi.json")
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(
        ErrorCode::MethodNotAllowed,
        format!("{} does not support {method}", uri.path()),
        "see /v1/openapi.json",
    )
}
