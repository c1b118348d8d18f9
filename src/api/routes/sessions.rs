//! Sessions: register, list, show, heartbeat, close, footer.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::conflicts;
use crate::api::extract::{Id, IdempotencyKey, JsonBody, Params, Peer};
use crate::api::json::Json;
use crate::api::on_demand::{Asked, Sought, note_of_list};
use crate::api::{Api, ApiError, parse_body};
use crate::domain::Process;
use crate::domain::activity::ActivityState;
use crate::domain::footer::{FooterForm, footer as footer_of};
use crate::domain::{InstanceId, Invalid, MachineName, Project, SessionLocation, Status, Timestamp};
use crate::platform::caller::PidError;
use crate::store::{Caller, Cursor, Filter, Lookup, MAX_CONFLICTS, NewSession, Once, OpContext, Record, SessionPage};
use crate::wire::{
    ErrorBody, ErrorCode, HeartbeatRequest, ListQuery, MAX_SESSIONS_PER_PAGE, Matches, RegisterRequest, SessionBody,
    SessionList, SessionView, Source,
};

/// Register a session on this host.
#[utoipa::path(post, path = "/v1/sessions", params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$", description = "a request repeated with the same key within 24 hours gets the first response")),
    request_body = RegisterRequest, responses((status = 201, body = SessionBody), (status = 400, body = ErrorBody),
    (status = 409, description = "the key was used for another request", body = ErrorBody)))]
pub(crate) async fn register(
    State(api): State<Arc<Api>>,
    peer: Peer,
    key: IdempotencyKey,
    JsonBody(request): JsonBody<RegisterRequest>,
) -> Result<(StatusCode, Json<SessionBody>), ApiError> {
    let this = api.identity.current().name;
    let registration = request.validate(&this)?;
    if registration.host_machine != this && !api.settings.borrow().allow_other {
        let rule = format!("this daemon accepts only sessions of {this}; machine.allow_other = true allows others");
        return Err(Invalid::new("host_machine", rule).into());
    }
    let process = named_process(&api, peer, request.pid).await?;
    let session = NewSession { what: registration, agent: request.agent()?, process };
    let context = api.context(peer.caller());
    let Some(key) = key.for_request("POST /v1/sessions", &request)? else {
        let record = api.store.register(session, context).await?;
        return Ok((StatusCode::CREATED, Json(body(&api, &record, (api.clock)()))));
    };
    let (shared, now) = (api.clone(), context.now);
    // A body of plain fields can always be serialized.
    let response = move |record: &Record| serde_json::to_string(&body(&shared, record, now)).unwrap_or_default();
    let session = match api.store.register_once(key, session, context, response).await? {
        Once::First(record) => body(&api, &record, now),
        Once::Again(response) => parse_body(response.as_bytes())?,
    };
    Ok((StatusCode::CREATED, Json(session)))
}

/// The process to watch; `None` also for one in a pid namespace that the daemon cannot see.
pub(super) async fn named_process(api: &Arc<Api>, peer: Peer, pid: Option<i32>) -> Result<Option<Process>, ApiError> {
    let Some(pid) = pid else { return Ok(None) };
    match resolve(api, peer, pid).await {
        Ok(process) => Ok(Some(process)),
        Err(PidError::NotVisible(_)) => Ok(None),
        Err(error @ PidError::NotRunning(_)) => Err(Invalid::new("pid", error.to_string()).into()),
        Err(error @ PidError::NotOwned { .. }) => {
            let hint = "give the pid of a process of your own, or none";
            Err(ApiError::new(ErrorCode::Forbidden, format!("pid: {error}"), hint))
        }
    }
}

pub(super) async fn resolve(api: &Arc<Api>, peer: Peer, pid: i32) -> Result<Process, PidError> {
    let resolve_pid = api.resolve_pid;
    let resolved = tokio::task::spawn_blocking(move || resolve_pid(&peer.credentials, pid)).await;
    resolved.unwrap_or(Err(PidError::NotVisible(pid)))
}

/// List sessions by project, most recent heartbeat first.
#[utoipa::path(get, path = "/v1/sessions", params(ListQuery), responses(
    (status = 200, body = SessionList), (status = 400, body = ErrorBody)))]
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    Params(query): Params<ListQuery>,
) -> Result<Json<SessionList>, ApiError> {
    let context = api.context(Caller::DAEMON);
    let now = context.now;
    let _permit = api.response_budget.list_permit().await;
    let mut filter = filter(&query)?;
    filter.closed_since = (query.all != Some(true)).then(|| now.minus(api.settings.borrow().keep_closed));
    let (source, note) = ask(&api, &filter, &query).await;
    if query.limit.is_some() || query.after.is_some() {
        let page = page(&api, filter, &query, context).await?;
        return Ok(Json(SessionList { source, note, ..page }));
    }
    let records = api.store.list(filter, context).await?;
    let mut instances: Vec<_> = records.iter().map(|record| body(&api, record, now)).collect();
    add_conflicts(&api, &mut instances).await?;
    let count = |status: Status| instances.iter().filter(|i| i.status == status.as_str()).count() as u64;
    Ok(Json(SessionList {
        total_count: instances.len() as u64,
        active_count: count(Status::Active),
        stale_count: count(Status::Stale),
        as_of: now.to_string(),
        instances,
        next: None,
        source,
        note,
    }))
}

/// Asks central for the sessions of a list that are not read ahead. Returns where the list comes from, and what it lacks. The
/// pages after the first one are those of the same sessions.
async fn ask(api: &Api, filter: &Filter, query: &ListQuery) -> (String, Option<String>) {
    let is_all = api.settings.borrow().scope.is_all();
    let project = filter.project.as_ref();
    if is_all || filter.local || query.after.is_some() {
        return (Source::Mirror.as_str().to_owned(), None);
    }
    let asked = match project {
        Some(project) => api.ask_for_project(project, filter.machine.as_ref(), filter.closed_since).await,
        None => Asked::NotNeeded,
    };
    let source = if matches!(asked, Asked::Answered(_)) { Source::Central } else { Source::Mirror };
    (source.as_str().to_owned(), note_of_list(&asked, project))
}

async fn page(api: &Api, filter: Filter, query: &ListQuery, context: OpContext) -> Result<SessionList, ApiError> {
    let limit = query.limit.unwrap_or(MAX_SESSIONS_PER_PAGE);
    if !(1..=MAX_SESSIONS_PER_PAGE).contains(&limit) {
        return Err(Invalid::new("limit", format!("it must be 1 to {MAX_SESSIONS_PER_PAGE}")).into());
    }
    let after = query.after.as_deref().map(Cursor::parse).transpose()?;
    let SessionPage { records, counts, next } = api.store.page(filter, limit as usize, after, context).await?;
    let now = context.now;
    Ok(SessionList {
        instances: records.iter().map(|record| body(api, record, now)).collect(),
        total_count: counts.active + counts.stale + counts.closed,
        active_count: counts.active,
        stale_count: counts.stale,
        as_of: now.to_string(),
        next: next.map(|cursor| cursor.to_text()),
        source: Source::Mirror.as_str().to_owned(),
        note: None,
    })
}

fn filter(query: &ListQuery) -> Result<Filter, Invalid> {
    let mut status = query.status.as_deref().map(Status::parse).transpose()?;
    if query.active_only == Some(true) {
        if status.is_some_and(|status| status != Status::Active) {
            return Err(Invalid::new("active_only", "it contradicts status; give one of the two"));
        }
        status = Some(Status::Active);
    }
    let local = query.local == Some(true);
    let activity = query.activity.as_deref().map(ActivityState::parse).transpose()?;
    Ok(Filter { status, local, activity, ..filter_by(query.project.as_deref(), query.machine.as_deref())? })
}

pub(super) fn filter_by(project: Option<&str>, machine: Option<&str>) -> Result<Filter, Invalid> {
    let machine = machine.map(MachineName::parse).transpose().map_err(|e| Invalid { field: "machine", ..e })?;
    Ok(Filter { project: project.map(Project::parse).transpose()?, machine, ..Filter::default() })
}

/// Show the session with this id or unique prefix of an id.
#[utoipa::path(get, path = "/v1/sessions/{id}", params(("id" = String, Path, min_length = 1, max_length = 32, description = "an id, or a prefix of one")),
    responses((status = 200, body = SessionBody), (status = 300, description = "several sessions match", body = Matches),
    (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn show(State(api): State<Arc<Api>>, Id(id): Id) -> Result<Response, ApiError> {
    let Sought { lookup, asked } = api.seek(&id).await?;
    let now = (api.clock)();
    match lookup {
        Lookup::One(record) => {
            let mut record = *record;
            record.conflicts = api.store.conflicts(record.clone(), api.context(Caller::DAEMON)).await?;
            Ok(Json(SessionBody { note: asked.note(), ..body(&api, &record, now) }).into_response())
        }
        Lookup::Several(records) => Ok(several_matches(&api, &records, now)),
        Lookup::None => Err(ApiError::not_found(&id)),
    }
}

/// Names to each session the others that it may get in the way of.
async fn add_conflicts(api: &Api, sessions: &mut [SessionBody]) -> Result<(), ApiError> {
    let overlaps = conflicts::of(&conflicts::live(api, api.context(Caller::DAEMON)).await?);
    let mut others: HashMap<&str, BTreeSet<&str>> = HashMap::new();
    for overlap in &overlaps {
        // One more, because a session is not named to itself.
        let named: Vec<_> = overlap.sessions.iter().take(MAX_CONFLICTS + 1).map(InstanceId::as_str).collect();
        for id in &overlap.sessions {
            others.entry(id.as_str()).or_default().extend(named.iter().filter(|other| **other != id.as_str()));
        }
    }
    for session in sessions {
        let named = others.get(session.instance_id.as_str()).into_iter().flatten().take(MAX_CONFLICTS);
        session.conflicts_with = named.map(|id| (*id).to_owned()).collect();
    }
    Ok(())
}

/// The response with status 300 for a prefix or hint that several sessions match.
pub(super) fn several_matches(api: &Api, records: &[Record], now: Timestamp) -> Response {
    let matches = records.iter().map(|record| body(api, record, now)).collect();
    (StatusCode::MULTIPLE_CHOICES, Json(Matches { matches })).into_response()
}

/// Record a heartbeat. Fields that it does not have stay unchanged.
#[utoipa::path(post, path = "/v1/sessions/{id}/heartbeat", params(("id" = String, Path, min_length = 1, max_length = 32)), request_body = Option<HeartbeatRequest>,
    responses((status = 200, body = SessionBody), (status = 400, body = ErrorBody),
    (status = 404, body = ErrorBody), (status = 409, description = "the session is closed", body = ErrorBody)))]
pub(crate) async fn heartbeat(
    State(api): State<Arc<Api>>,
    peer: Peer,
    Id(id): Id,
    JsonBody(request): JsonBody<HeartbeatRequest>,
) -> Result<Json<SessionBody>, ApiError> {
    let context = api.context(peer.caller());
    let record = api.store.heartbeat(id, request.validate(context.now)?, context).await?;
    Ok(Json(body(&api, &record, context.now)))
}

/// Close a session, permanently. Closing it again changes nothing.
#[utoipa::path(post, path = "/v1/sessions/{id}/close", params(("id" = String, Path, min_length = 1, max_length = 32)), responses(
    (status = 200, body = SessionBody), (status = 400, body = ErrorBody),
    (status = 404, body = ErrorBody)))]
pub(crate) async fn close(State(api): State<Arc<Api>>, peer: Peer, Id(id): Id) -> Result<Json<SessionBody>, ApiError> {
    let context = api.context(peer.caller());
    let record = api.store.close(id, context).await?;
    Ok(Json(body(&api, &record, context.now)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct FooterQuery {
    /// Whether the footer begins with a line `---`: `separator`, `separator=true` or `separator=1`.
    #[param(pattern = "^(true|false|1|0|)$")]
    separator: Option<String>,
}

/// Show the footer: the line that an agent prints under its answers.
#[utoipa::path(get, path = "/v1/sessions/{id}/footer", params(("id" = String, Path, min_length = 1, max_length = 32), FooterQuery), responses(
    (status = 200, body = String, content_type = "text/plain"), (status = 300, body = Matches),
    (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn footer(
    State(api): State<Arc<Api>>,
    Id(id): Id,
    Params(query): Params<FooterQuery>,
) -> Result<Response, ApiError> {
    let form = match query.separator.as_deref() {
        None | Some("false" | "0") => FooterForm::Plain,
        Some("" | "true" | "1") => FooterForm::Separated,
        Some(_) => return Err(ApiError::bad_request("separator: it must be true or false")),
    };
    let now = (api.clock)();
    match api.find(&id).await? {
        Lookup::One(record) => Ok(footer_of(&record.session, now, form).into_response()),
        Lookup::Several(records) => Ok(several_matches(&api, &records, now)),
        Lookup::None => Err(ApiError::not_found(&id)),
    }
}

/// The session as the routes show it.
pub(super) fn body(api: &Api, record: &Record, now: Timestamp) -> SessionBody {
    let stale_after = api.settings.borrow().stale_after;
    let place = place(api, record, now);
    let view = SessionView {
        session: &record.session,
        local: place.local,
        as_of: place.as_of.unwrap_or(record.session.created_at),
        synced: record.unsynced_since.is_none(),
        machine_synced: place.synced(now, stale_after),
        alive_as_of: place.alive_as_of,
        former_id: record.former_id.as_deref(),
        checkpoint_due: record.checkpoint_due,
        conflicts: &record.conflicts,
        work: record.work.as_deref(),
        source: record.mirrored.then_some(if record.read_at.is_some() { Source::Central } else { Source::Mirror }),
    };
    view.body(now, stale_after)
}

/// Where a session's state comes from and as of when it is known; `here` is left false.
pub(super) fn place(api: &Api, record: &Record, now: Timestamp) -> SessionLocation {
    let as_of = match record.read_at {
        Some(at) => Some(at),
        None if record.mirrored => api.store.mirror_as_of(),
        None => Some(now),
    };
    SessionLocation {
        here: false,
        local: !record.mirrored,
        last_seen: record.machine_seen,
        alive_as_of: record.alive_as_of,
        as_of,
    }
}
