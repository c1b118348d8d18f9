//! What a session works on.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::sessions::several_matches;
use crate::api::extract::{Id, JsonBody, Peer};
use crate::api::json::Json;
use crate::api::{Api, ApiError};
use crate::domain::work::WorkUpdate;
use crate::store::Lookup;
use crate::wire::{ErrorBody, Matches, WorkBody};

/// Show what the session with this id or unique prefix of an id works on.
#[utoipa::path(get, path = "/v1/sessions/{id}/work", params(("id" = String, Path, min_length = 1, max_length = 32)),
    responses((status = 200, body = WorkBody), (status = 300, description = "several sessions match", body = Matches),
    (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn show(State(api): State<Arc<Api>>, Id(id): Id) -> Result<Response, ApiError> {
    match api.find(&id).await? {
        Lookup::One(record) => {
            let id = record.session.instance_id;
            let work = api.store.work(id.clone()).await?;
            Ok(Json(WorkBody::new(id.as_str(), work)).into_response())
        }
        Lookup::Several(records) => Ok(several_matches(&api, &records, (api.clock)())),
        Lookup::None => Err(ApiError::not_found(&id)),
    }
}

/// Record what a session works on. Parts that are left out stay as they are.
#[utoipa::path(put, path = "/v1/sessions/{id}/work", params(("id" = String, Path, min_length = 1, max_length = 32)),
    request_body = WorkUpdate, responses((status = 200, body = WorkBody), (status = 400, body = ErrorBody),
    (status = 404, body = ErrorBody), (status = 409, description = "the session is closed", body = ErrorBody)))]
pub(crate) async fn record(
    State(api): State<Arc<Api>>,
    peer: Peer,
    Id(id): Id,
    JsonBody(update): JsonBody<WorkUpdate>,
) -> Result<Json<WorkBody>, ApiError> {
    let work = api.store.record_work(id, update.without_secrets(), api.context(peer.caller())).await?;
    let id = work.instance_id.clone();
    Ok(Json(WorkBody::new(id.as_str(), Some(work))))
}
