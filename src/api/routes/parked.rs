//! Parked sessions and records: those that central refused permanently.

use std::sync::Arc;

use axum::extract::State;

use crate::api::extract::{JsonBody, Peer};
use crate::api::json::Json;
use crate::api::{Api, ApiError};
use crate::wire::{ErrorBody, ParkedBody, ParkedCount, ParkedIds};

/// List parked sessions and records, and why central refused them.
#[utoipa::path(get, path = "/v1/parked", responses((status = 200, body = Vec<ParkedBody>)))]
pub(crate) async fn list(State(api): State<Arc<Api>>) -> Result<Json<Vec<ParkedBody>>, ApiError> {
    let parked = api.store.parked().await?;
    let body = parked.into_iter().map(|p| ParkedBody {
        id: p.id(),
        instance_id: p.instance_id.to_string(),
        kind: p.record.as_ref().map(|record| record.kind.as_str().to_owned()),
        record_type: p.record.map(|record| record.record_type),
        error: p.error,
        parked_at: p.parked_at.to_string(),
    });
    Ok(Json(body.collect()))
}

/// Push parked sessions and records again.
#[utoipa::path(post, path = "/v1/parked/retry", request_body = Option<ParkedIds>, responses(
    (status = 200, body = ParkedCount), (status = 400, body = ErrorBody),
    (status = 404, body = ErrorBody)))]
pub(crate) async fn retry(
    State(api): State<Arc<Api>>,
    peer: Peer,
    JsonBody(which): JsonBody<ParkedIds>,
) -> Result<Json<ParkedCount>, ApiError> {
    peer.require_administrator(&api.daemon)?;
    let count = api.store.retry_parked(which.ids).await?;
    api.push_now.notify_one();
    Ok(Json(ParkedCount { count: count as u64 }))
}

/// Drop parked changes: they are not pushed any more. Later changes of a session are.
#[utoipa::path(post, path = "/v1/parked/drop", request_body = Option<ParkedIds>, responses(
    (status = 200, body = ParkedCount), (status = 400, body = ErrorBody),
    (status = 404, body = ErrorBody)))]
pub(crate) async fn drop(
    State(api): State<Arc<Api>>,
    peer: Peer,
    JsonBody(which): JsonBody<ParkedIds>,
) -> Result<Json<ParkedCount>, ApiError> {
    peer.require_administrator(&api.daemon)?;
    let count = api.store.drop_parked(which.ids).await?;
    Ok(Json(ParkedCount { count: count as u64 }))
}
