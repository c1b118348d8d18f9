//! Extractors: the parts of a request that the routes use, each with an error that names the wrong field.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ApiError, DaemonInfo};
use crate::platform::{caller, peer};
use crate::store::{Caller, RequestKey};
use crate::wire::ErrorCode;

/// The user and process at the other end of the connection; the server attaches it to every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The user whose rights the request has; not always the one that the kernel reports, see
    /// [`caller::effective_uid`].
    pub uid: u32,
    /// As the kernel reports it.
    pub credentials: peer::PeerCredentials,
}

impl Peer {
    /// A user without a process.
    pub fn of_user(uid: u32) -> Self {
        Self { uid, credentials: peer::PeerCredentials { uid, gid: uid, pid: None } }
    }

    /// `None` for a process that has ended, if its rights cannot be determined any more.
    pub fn new(credentials: peer::PeerCredentials) -> Option<Self> {
        Some(Self { uid: caller::effective_uid(&credentials)?, credentials })
    }

    pub(crate) fn caller(self) -> Caller {
        Caller { uid: self.uid }
    }

    /// Only root and the user who runs the daemon may administer it.
    ///
    /// # Errors
    /// The request is another user's.
    pub fn require_administrator(self, daemon: &DaemonInfo) -> Result<(), ApiError> {
        if self.uid == 0 || self.uid == daemon.uid {
            return Ok(());
        }
        Err(ApiError::new(
            ErrorCode::Forbidden,
            "only root and the user who runs the daemon may do this",
            "run it as one of them",
        ))
    }
}

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get().copied().ok_or_else(|| {
            ApiError::new(
                ErrorCode::Forbidden,
                "the user at the other end of this connection is unknown",
                "connect over the Unix socket",
            )
        })
    }
}

/// A JSON body, of any Content-Type; an empty one and `null` stand for `{}`.
pub(super) struct JsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes =
            Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status().as_u16() {
                413 => ApiError::new(
                    ErrorCode::TooLarge,
                    format!("the body is larger than {} bytes", super::MAX_BODY),
                    "send less; nothing was recorded",
                ),
                _ => ApiError::bad_request(format!("the body could not be read: {}", rejection.body_text())),
            })?;
        parse_body(if matches!(bytes.trim_ascii(), b"" | b"null") { b"{}" } else { &bytes }).map(Self)
    }
}

/// Parses one JSON object.
///
/// # Errors
/// It is no JSON object or does not fit `T`; the error names the field.
pub fn parse_body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        let what = if inner.is_data() { inner.to_string() } else { format!("the body is not JSON: {inner}") };
        ApiError::bad_request(if path == "." { what } else { format!("{path}: {what}") })
    })?;
    json.end().map_err(|error| ApiError::bad_request(format!("the body is not one JSON document: {error}")))?;
    // serde also accepts an array with the fields in order.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(ApiError::bad_request("the body must be a JSON object"));
    }
    Ok(value)
}

/// The session id, or a prefix of one, in the path.
pub(super) struct Id(pub String);

/// The longest accepted id in bytes. Ids have at most 32 characters; this bounds what an error quotes.
const MAX_ID: usize = 128;

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(id) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ApiError::bad_request(format!("the path is not valid: {}", rejection.body_text())))?;
        if id.len() > MAX_ID {
            return Err(ApiError::bad_request(format!(
                "instance_id: {} characters are too long; at most 32",
                id.len()
            )));
        }
        Ok(Self(id))
    }
}

/// The `Idempotency-Key` header: a request repeated with the same key gets the first response.
pub(super) struct IdempotencyKey(pub Option<String>);

const KEY_HEADER: &str = "idempotency-key";
const MAX_KEY: usize = 255;

impl IdempotencyKey {
    /// The key under which the store keeps the response; `target` is the request's method and path.
    pub(super) fn for_request(self, target: &str, request: &impl Serialize) -> Result<Option<RequestKey>, ApiError> {
        let Some(key) = self.0 else { return Ok(None) };
        let body = serde_json::to_vec(request).map_err(|error| ApiError::bad_request(error.to_string()))?;
        Ok(Some(RequestKey::new(key, target, &body)))
    }
}

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let mut keys = parts.headers.get_all(KEY_HEADER).iter();
        let Some(key) = keys.next() else { return Ok(Self(None)) };
        let wrong = |rule: &str| ApiError::bad_request(format!("Idempotency-Key: {rule}"));
        if keys.next().is_some() {
            return Err(wrong("there are two of them; send one"));
        }
        match key.to_str().ok().filter(|key| (1..=MAX_KEY).contains(&key.len())) {
            Some(key) if key.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Self(Some(key.to_owned()))),
            _ => Err(wrong("it must be 1 to 255 visible ASCII characters, such as a UUID")),
        }
    }
}

/// The query of the URL.
pub(super) struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(query) = Query::<T>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
        Ok(Self(query))
    }
}
