//! What answers may hold in memory before their clients have read them.

use std::sync::Arc;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ApiError;
use crate::wire::ErrorCode;

/// All large answers together, in KiB.
const MOST: u32 = 64 * 1024;
/// Answers below this, in KiB, are bounded by the number of connections.
const LARGE: u32 = 64;
/// After an answer of so many KiB the memory it was made in goes back to the system.
const HUGE: u32 = 1024;
/// How many lists are made at once: each is held in memory several times over while it is made.
const LISTS: usize = 4;

/// Bounds what clients that do not read can make the daemon hold. Clones share it.
#[derive(Clone, Debug)]
pub struct Unread {
    kib: Arc<Semaphore>,
    lists: Arc<Semaphore>,
    give_back: fn(),
}

impl Unread {
    /// `give_back` hands memory that is free to the system, which the allocator would keep for the next such answer.
    pub fn new(give_back: fn()) -> Self {
        Self { kib: Arc::new(Semaphore::new(MOST as usize)), lists: Arc::new(Semaphore::new(LISTS)), give_back }
    }

    /// Waits until it is this list's turn to be made; it lasts until what this returns goes.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        self.lists.clone().acquire_owned().await.ok()
    }

    /// The answer, counted until its last byte has left; or a refusal where too many wait to be read.
    pub async fn count(&self, response: Response) -> Response {
        let size = response.body().size_hint().exact().unwrap_or(0).div_ceil(1024);
        // One that is larger than all together has to go alone.
        let size = u32::try_from(size).unwrap_or(MOST).min(MOST);
        if size < LARGE {
            return response;
        }
        let Ok(counted) = self.kib.clone().try_acquire_many_owned(size) else {
            return too_much().into_response();
        };
        let (head, body) = response.into_parts();
        match to_bytes(body, usize::MAX).await {
            Ok(bytes) => {
                let after = if size < HUGE { || {} } else { self.give_back };
                let bytes = Counted { bytes, _counted: counted, after };
                Response::from_parts(head, Body::from(Bytes::from_owner(bytes)))
            }
            Err(_) => too_much().into_response(),
        }
    }
}

/// Bytes that are counted for as long as they are there.
struct Counted {
    bytes: Bytes,
    _counted: OwnedSemaphorePermit,
    /// Called when they are gone.
    after: fn(),
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.bytes = Bytes::new();
        (self.after)();
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn too_much() -> ApiError {
    ApiError::new(
        ErrorCode::Unavailable,
        "too many long answers wait for their clients to read them",
        "try again in a moment, or ask for less, such as one project",
    )
}
