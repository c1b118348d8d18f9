//! Events, commands and checkpoints: taking them down and asking for them.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use uuid::Uuid;

use super::sessions;
use crate::api::extract::{Body, Id, IdempotencyKey, Params, Peer};
use crate::api::json::Json;
use crate::api::{Api, ApiError};
use crate::domain::{Happening, Kind};
use crate::store::{History, HistoryQuery, Lookup, RequestKey, StoredRecord};
use crate::wire::{
    CheckpointBody, CheckpointList, CheckpointRequest, CommandBody, CommandList, CommandRequest, ErrorBody, EventBody,
    EventList, EventRequest, HistoryFilter, HistoryParams, Matches, RecordBody, RecordState,
};

/// Take down an event of a session, be it closed. What looks like a secret in it is blanked.
#[utoipa::path(post, path = "/v1/sessions/{id}/events", params(("id" = String, Path, min_length = 1, max_length = 32),
    ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$", description = "repeats under the same key, within 24 hours, get the first answer")),
    request_body = EventRequest, responses((status = 201, body = EventBody), (status = 400, body = ErrorBody),
    (status = 404, body = ErrorBody),
    (status = 409, description = "the session is another machine's, or the key came with another request", body = ErrorBody)))]
pub async fn add_event(
    State(api): State<Arc<Api>>,
    peer: Peer,
    Id(id): Id,
    key: IdempotencyKey,
    Body(request): Body<EventRequest>,
) -> Result<(StatusCode, Json<EventBody>), ApiError> {
    let key = key.of(&format!("POST /v1/sessions/{id}"), &request)?;
    add(&api, peer, id, key, request.validate()?).await
}

/// Events of a session, newest first.
#[utoipa::path(get, path = "/v1/sessions/{id}/events", params(("id" = String, Path, min_length = 1, max_length = 32), HistoryParams),
    responses((status = 200, body = EventList), (status = 300, body = Matches), (status = 400, body = ErrorBody),
    (status = 404, body = ErrorBody)))]
pub async fn events(
    State(api): State<Arc<Api>>,
    Id(id): Id,
    Params(params): Params<HistoryParams>,
) -> Result<Response, ApiError> {
    let list = |instance_id, events, more| EventList { instance_id, events, more };
    ask(&api, id, Kind::Event, params, list).await
}

/// Take down a command of a session, be it closed. What looks like a secret in it is blanked.
#[utoipa::path(post, path = "/v1/sessions/{id}/commands", params(("id" = String, Path, min_length = 1, max_length = 32),
    ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$", description = "repeats under the same key, within 24 hours, get the first answer")),
    request_body = CommandRequest, responses((status = 201, body = CommandBody), (status = 400, body = ErrorBody),
    (status = 404, body = ErrorBody),
    (status = 409, description = "the session is another machine's, or the key came with another request", body = ErrorBody)))]
pub async fn add_command(
    State(api): State<Arc<Api>>,
    peer: Peer,
    Id(id): Id,
    key: IdempotencyKey,
    Body(request): Body<CommandRequest>,
) -> Result<(StatusCode, Json<CommandBody>), ApiError> {
    let key = key.of(&format!("POST /v1/sessions/{id}"), &request)?;
    add(&api, peer, id, key, request.validate()?).await
}

/// Commands of a session, newest first.
#[utoipa::path(get, path = "/v1/sessions/{id}/commands", params(("id" = String, Path, min_length = 1, max_length = 32), HistoryParams),
    responses((status = 200, body = CommandList), (status = 300, body = Matches), (status = 400, body = ErrorBody),
    (status = 404, body = ErrorBody)))]
pub async fn commands(
    State(api): State<Arc<Api>>,
    Id(id): Id,
    Params(params): Params<HistoryParams>,
) -> Result<Response, ApiError> {
    let list = |instance_id, commands, more| CommandList { instance_id, commands, more };
    ask(&api, id, Kind::Command, params, list).await
}

/// Take down a checkpoint of a session, be it closed. What looks like a secret in it is blanked.
#[utoipa::path(post, path = "/v1/sessions/{id}/checkpoints", params(("id" = String, Path, min_length = 1, max_length = 32),
    ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$", description = "repeats under the same key, within 24 hours, get the first answer")),
    request_body = CheckpointRequest, responses((status = 201, body = CheckpointBody), (status = 400, body = ErrorBody),
    (status = 404, body = ErrorBody),
    (status = 409, description = "the session is another machine's, or the key came with another request", body = ErrorBody)))]
pub async fn add_checkpoint(
    State(api): State<Arc<Api>>,
    peer: Peer,
    Id(id): Id,
    key: IdempotencyKey,
    Body(request): Body<CheckpointRequest>,
) -> Result<(StatusCode, Json<CheckpointBody>), ApiError> {
    let key = key.of(&format!("POST /v1/sessions/{id}"), &request)?;
    add(&api, peer, id, key, request.validate()?).await
}

/// Checkpoints of a session, newest first.
#[utoipa::path(get, path = "/v1/sessions/{id}/checkpoints", params(("id" = String, Path, min_length = 1, max_length = 32), HistoryParams),
    responses((status = 200, body = CheckpointList), (status = 300, body = Matches), (status = 400, body = ErrorBody),
    (status = 404, body = ErrorBody)))]
pub async fn checkpoints(
    State(api): State<Arc<Api>>,
    Id(id): Id,
    Params(params): Params<HistoryParams>,
) -> Result<Response, ApiError> {
    let list = |instance_id, checkpoints, more| CheckpointList { instance_id, checkpoints, more };
    ask(&api, id, Kind::Checkpoint, params, list).await
}

async fn add<T: RecordBody>(
    api: &Api,
    peer: Peer,
    id: String,
    key: Option<RequestKey>,
    what: Happening,
) -> Result<(StatusCode, Json<T>), ApiError> {
    let random = Uuid::from_u64_pair((api.random)(), (api.random)());
    let record_id = uuid::Builder::from_random_bytes(random.into_bytes()).into_uuid();
    let (caller, now) = (peer.caller(), (api.clock)());
    let kept = match key {
        Some(key) => api.store.append_once(key, id, what, record_id, caller, now).await?,
        None => api.store.append(id, what, record_id, caller, now).await?,
    };
    Ok((StatusCode::CREATED, Json(body(kept))))
}

fn body<T: RecordBody>(kept: StoredRecord) -> T {
    let StoredRecord { record, synced, parked } = kept;
    T::of(record, RecordState { synced, parked: parked.is_some(), note: parked })
}

async fn ask<T: RecordBody, L: Serialize>(
    api: &Api,
    id: String,
    kind: Kind,
    params: HistoryParams,
    list: impl FnOnce(String, Vec<T>, bool) -> L,
) -> Result<Response, ApiError> {
    let HistoryFilter { record_type, since, until, contains, limit, offset, after } = params.validate(kind)?;
    let session = match api.store.find(id.clone()).await? {
        Lookup::One(record) => record.session.instance_id,
        Lookup::None => return Err(ApiError::not_found(&id)),
        Lookup::Several(records) => {
            let now = (api.clock)();
            let matches = records.iter().map(|record| sessions::body(api, record, now)).collect();
            return Ok((StatusCode::MULTIPLE_CHOICES, Json(Matches { matches })).into_response());
        }
    };
    let _turn = api.unread.turn().await;
    let query = HistoryQuery { kind, record_type, since, until, contains, limit, offset, after };
    let History { records, more } = api.store.history(session.clone(), query).await?;
    let records = records.into_iter().map(body).collect();
    Ok(Json(list(session.to_string(), records, more)).into_response())
}
