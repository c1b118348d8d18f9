//! Events, commands and checkpoints: recording and listing them.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use uuid::Uuid;

use super::sessions;
use crate::api::extract::{Id, IdempotencyKey, JsonBody, Params, Peer};
use crate::api::json::Json;
use crate::api::on_demand::Sought;
use crate::api::{Api, ApiError};
use crate::domain::{NewRecord, RecordKind};
use crate::store::{Append, History, HistoryQuery, Lookup, RequestKey, StoredRecord};
use crate::wire::{
    CheckpointBody, CheckpointList, CheckpointRequest, CommandBody, CommandList, CommandRequest, ErrorBody, EventBody,
    EventList, EventRequest, HistoryFilter, HistoryParams, Matches, RecordBody, RecordState,
};

/// Record an event of a session, which may be closed. Text that looks like a secret is redacted.
#[utoipa::path(post, path = "/v1/sessions/{id}/events", params(("id" = String, Path, min_length = 1, max_length = 32),
    ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$", description = "a request repeated with the same key within 24 hours gets the first response")),
    request_body = EventRequest, responses((status = 201, body = EventBody), (status = 400, body = ErrorBody),
    (status = 404, body = ErrorBody),
    (status = 409, description = "the session belongs to another machine, or the key was used for another request", body = ErrorBody)))]
pub(crate) async fn add_event(
    State(api): State<Arc<Api>>,
    peer: Peer,
    Id(id): Id,
    key: IdempotencyKey,
    JsonBody(request): JsonBody<EventRequest>,
) -> Result<(StatusCode, Json<EventBody>), ApiError> {
    let key = key.for_request(&format!("POST /v1/sessions/{id}"), &request)?;
    record(&api, peer, id, key, request.validate()?).await
}

/// List the events of a session, newest first.
#[utoipa::path(get, path = "/v1/sessions/{id}/events", params(("id" = String, Path, min_length = 1, max_length = 32), HistoryParams),
    responses((status = 200, body = EventList), (status = 300, body = Matches), (status = 400, body = ErrorBody),
    (status = 404, body = ErrorBody)))]
pub(crate) async fn events(
    State(api): State<Arc<Api>>,
    Id(id): Id,
    Params(params): Params<HistoryParams>,
) -> Result<Response, ApiError> {
    let list = |instance_id, events, more, note| EventList { instance_id, events, more, note };
    list_records(&api, id, RecordKind::Event, params, list).await
}

/// Record a command of a session, which may be closed. Text that looks like a secret is redacted.
#[utoipa::path(post, path = "/v1/sessions/{id}/commands", params(("id" = String, Path, min_length = 1, max_length = 32),
    ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$", description = "a request repeated with the same key within 24 hours gets the first response")),
    request_body = CommandRequest, responses((status = 201, body = CommandBody), (status = 400, body = ErrorBody),
    (status = 404, body = ErrorBody),
    (status = 409, description = "the session belongs to another machine, or the key was used for another request", body = ErrorBody)))]
pub(crate) async fn add_command(
    State(api): State<Arc<Api>>,
    peer: Peer,
    Id(id): Id,
    key: IdempotencyKey,
    JsonBody(request): JsonBody<CommandRequest>,
) -> Result<(StatusCode, Json<CommandBody>), ApiError> {
    let key = key.for_request(&format!("POST /v1/sessions/{id}"), &request)?;
    record(&api, peer, id, key, request.validate()?).await
}

/// List the commands of a session, newest first.
#[utoipa::path(get, path = "/v1/sessions/{id}/commands", params(("id" = String, Path, min_length = 1, max_length = 32), HistoryParams),
    responses((status = 200, body = CommandList), (status = 300, body = Matches), (status = 400, body = ErrorBody),
    (status = 404, body = ErrorBody)))]
pub(crate) async fn commands(
    State(api): State<Arc<Api>>,
    Id(id): Id,
    Params(params): Params<HistoryParams>,
) -> Result<Response, ApiError> {
    let list = |instance_id, commands, more, note| CommandList { instance_id, commands, more, note };
    list_records(&api, id, RecordKind::Command, params, list).await
}

/// Record a checkpoint of a session, which may be closed. Text that looks like a secret is redacted.
#[utoipa::path(post, path = "/v1/sessions/{id}/checkpoints", params(("id" = String, Path, min_length = 1, max_length = 32),
    ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$", description = "a request repeated with the same key within 24 hours gets the first response")),
    request_body = CheckpointRequest, responses((status = 201, body = CheckpointBody), (status = 400, body = ErrorBody),
    (status = 404, body = ErrorBody),
    (status = 409, description = "the session belongs to another machine, or the key was used for another request", body = ErrorBody)))]
pub(crate) async fn add_checkpoint(
    State(api): State<Arc<Api>>,
    peer: Peer,
    Id(id): Id,
    key: IdempotencyKey,
    JsonBody(request): JsonBody<CheckpointRequest>,
) -> Result<(StatusCode, Json<CheckpointBody>), ApiError> {
    let key = key.for_request(&format!("POST /v1/sessions/{id}"), &request)?;
    record(&api, peer, id, key, request.validate()?).await
}

/// List the checkpoints of a session, newest first.
#[utoipa::path(get, path = "/v1/sessions/{id}/checkpoints", params(("id" = String, Path, min_length = 1, max_length = 32), HistoryParams),
    responses((status = 200, body = CheckpointList), (status = 300, body = Matches), (status = 400, body = ErrorBody),
    (status = 404, body = ErrorBody)))]
pub(crate) async fn checkpoints(
    State(api): State<Arc<Api>>,
    Id(id): Id,
    Params(params): Params<HistoryParams>,
) -> Result<Response, ApiError> {
    let list = |instance_id, checkpoints, more, note| CheckpointList { instance_id, checkpoints, more, note };
    list_records(&api, id, RecordKind::Checkpoint, params, list).await
}

async fn record<T: RecordBody>(
    api: &Api,
    peer: Peer,
    id: String,
    key: Option<RequestKey>,
    what: NewRecord,
) -> Result<(StatusCode, Json<T>), ApiError> {
    let random = Uuid::from_u64_pair((api.random)(), (api.random)());
    let record_id = uuid::Builder::from_random_bytes(random.into_bytes()).into_uuid();
    let new = Append { id, what, record_id };
    let context = api.context(peer.caller());
    let kept = match key {
        Some(key) => api.store.append_once(key, new, context).await?,
        None => api.store.append(new, context).await?,
    };
    Ok((StatusCode::CREATED, Json(body(kept))))
}

fn body<T: RecordBody>(kept: StoredRecord) -> T {
    let StoredRecord { record, synced, parked } = kept;
    T::new(record, RecordState { synced, parked: parked.is_some(), note: parked })
}

async fn list_records<T: RecordBody, L: Serialize>(
    api: &Api,
    id: String,
    kind: RecordKind,
    params: HistoryParams,
    list: impl FnOnce(String, Vec<T>, bool, Option<String>) -> L,
) -> Result<Response, ApiError> {
    let HistoryFilter { record_type, since, until, contains, limit, offset, after } = params.validate(kind)?;
    let Sought { lookup, asked } = api.seek(&id).await?;
    let record = match lookup {
        Lookup::One(record) => record,
        Lookup::None => return Err(ApiError::not_found(&id)),
        Lookup::Several(records) => return Ok(sessions::several_matches(api, &records, (api.clock)())),
    };
    let note = asked.note().or(api.ask_for_history(&record).await?.note());
    let session = record.session.instance_id;
    let _permit = api.response_budget.list_permit().await;
    let query = HistoryQuery { kind, record_type, since, until, contains, limit, offset, after };
    let History { records, more } = api.store.history(session.clone(), query).await?;
    let records = records.into_iter().map(body).collect();
    Ok(Json(list(session.to_string(), records, more, note)).into_response())
}
