//! Bounds the memory held by responses that their clients have not read yet.
//!
//! A response of [`LARGE_KIB`] or more is counted against a budget of [`BUDGET_KIB`] until its last byte is sent; where
//! the budget is used up, the request is refused with 503. Smaller responses are bounded by the number of connections.
//! At most [`LISTS`] lists are built at once, since a list is held in memory several times over while it is built.

use std::sync::Arc;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ApiError;
use crate::wire::ErrorCode;

/// All large responses together, in KiB.
const BUDGET_KIB: u32 = 64 * 1024;
/// From this size on, in KiB, a response is counted.
const LARGE_KIB: u32 = 64;
/// After a response of this size, in KiB, free memory is returned to the system.
const TRIM_KIB: u32 = 1024;
/// How many lists are built at once.
const LISTS: usize = 4;

/// The budget. Clones share it.
#[derive(Clone, Debug)]
pub struct ResponseBudget {
    kib: Arc<Semaphore>,
    lists: Arc<Semaphore>,
    trim_memory: fn(),
}

impl ResponseBudget {
    /// `trim_memory` returns the allocator's free memory to the system.
    pub fn new(trim_memory: fn()) -> Self {
        let (kib, lists) = (Semaphore::new(BUDGET_KIB as usize), Semaphore::new(LISTS));
        Self { kib: Arc::new(kib), lists: Arc::new(lists), trim_memory }
    }

    /// Waits until another list may be built; the permit is held while it is.
    pub async fn list_permit(&self) -> Option<OwnedSemaphorePermit> {
        self.lists.clone().acquire_owned().await.ok()
    }

    /// The response, counted until its last byte is sent; a refusal where the budget is used up.
    pub async fn count(&self, response: Response) -> Response {
        let size = response.body().size_hint().exact().unwrap_or(0).div_ceil(1024);
        // A response larger than the budget takes all of it.
        let size = u32::try_from(size).unwrap_or(BUDGET_KIB).min(BUDGET_KIB);
        if size < LARGE_KIB {
            return response;
        }
        let Ok(permit) = self.kib.clone().try_acquire_many_owned(size) else {
            return budget_exhausted().into_response();
        };
        let (head, body) = response.into_parts();
        match to_bytes(body, usize::MAX).await {
            Ok(bytes) => {
                let on_drop = if size < TRIM_KIB { || {} } else { self.trim_memory };
                let bytes = CountedBytes { bytes, _permit: permit, on_drop };
                Response::from_parts(head, Body::from(Bytes::from_owner(bytes)))
            }
            Err(_) => budget_exhausted().into_response(),
        }
    }
}

/// The bytes of a response; their part of the budget is released when they are dropped.
struct CountedBytes {
    bytes: Bytes,
    _permit: OwnedSemaphorePermit,
    /// Called after the bytes are freed.
    on_drop: fn(),
}

impl Drop for CountedBytes {
    fn drop(&mut self) {
        self.bytes = Bytes::new();
        (self.on_drop)();
    }
}

impl AsRef<[u8]> for CountedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn budget_exhausted() -> ApiError {
    ApiError::new(
        ErrorCode::Unavailable,
        "too many large responses wait for their clients to read them",
        "try again in a second, or ask for less, such as one project",
    )
}
