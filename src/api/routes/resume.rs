//! Going on from a session, and what it was at.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::sessions::{body, named_process, place};
use crate::api::extract::{Body, Id, Params, Peer};
use crate::api::json::Json;
use crate::api::{Api, ApiError};
use crate::domain::context::reconstruct;
use crate::domain::handoff::{Handoff, ResumeProgress, resume_command};
use crate::domain::time::age;
use crate::domain::{Place, Session, Timestamp};
use crate::store::{Heir, Lookup, Record, Resumed, Resumption, Wanted};
use crate::wire::{ContextBody, ErrorBody, ErrorCode, Matches, ResumeBody, ResumeRequest};

const MARKDOWN: &str = "text/markdown; charset=utf-8";

/// Go on from a session: take it up again, or register one that inherits from it.
#[utoipa::path(post, path = "/v1/resume", request_body = Option<ResumeRequest>, responses(
    (status = 200, body = ResumeBody), (status = 300, description = "several sessions match", body = Matches),
    (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, description = "the session is active, or closed", body = ErrorBody)))]
pub async fn resume(
    State(api): State<Arc<Api>>,
    peer: Peer,
    Body(request): Body<ResumeRequest>,
) -> Result<Response, ApiError> {
    let wanted =
        Wanted { meanings: request.meanings()?, choice: request.choice()?, closed: request.closed.unwrap_or(false) };
    let successor = request.successor(api.identity.current().name, peer.uid)?;
    let process = named_process(&api, peer, request.pid).await?;
    let heir = Heir { successor, process, draws: std::array::from_fn(|_| (api.random)()) };
    let (now, stale_after) = ((api.clock)(), api.settings.borrow().stale_after);
    match api.store.resume(wanted, heir, now, stale_after).await? {
        Resumption::Done(resumed) => Ok(Json(resumed_body(&api, *resumed, now).await?).into_response()),
        Resumption::Several(records) => Ok(several(&api, &records, now)),
        Resumption::Active(record) => Err(active(&record.session, now, stale_after)),
        Resumption::Closed(record) => Err(closed(&record.session)),
        Resumption::Beyond(of) => Err(beyond(of)),
        Resumption::None => Err(nothing(request.hint.as_deref())),
    }
}

async fn resumed_body(api: &Api, resumed: Resumed, now: Timestamp) -> Result<ResumeBody, ApiError> {
    let told = tell(api, &resumed.from, ResumeProgress::Resumed, now).await?;
    Ok(ResumeBody {
        session: body(api, &resumed.session, now),
        resumed: if resumed.is_taken_up() { "taken_up" } else { "new_session" }.to_owned(),
        found_by: resumed.found_by.as_str().to_owned(),
        from: body(api, &resumed.from, now),
        context: told.0,
        handoff: told.1,
    })
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ContextQuery {
    /// `json` or `markdown`, the handoff. Default: as the header Accept prefers, else `json`.
    #[param(pattern = "^(json|markdown)$")]
    format: Option<String>,
}

/// What the session with this id, or the one whose id begins so, was at.
#[utoipa::path(get, path = "/v1/sessions/{id}/context", params(("id" = String, Path, min_length = 1, max_length = 32), ContextQuery),
    responses((status = 200, content((ContextBody = "application/json"), (String = "text/markdown"))),
    (status = 300, description = "several sessions match", body = Matches),
    (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub async fn context(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    Id(id): Id,
    Params(query): Params<ContextQuery>,
) -> Result<Response, ApiError> {
    let markdown = match query.format.as_deref() {
        None => prefers_markdown(&headers),
        Some("json") => false,
        Some("markdown") => true,
        Some(_) => return Err(ApiError::bad_request("format: it must be json or markdown")),
    };
    let now = (api.clock)();
    match api.store.find(id.clone()).await? {
        Lookup::One(record) => {
            let (context, handoff) = tell(&api, &record, ResumeProgress::NotResumed, now).await?;
            Ok(if markdown { markdown_of(handoff) } else { Json(context).into_response() })
        }
        Lookup::Several(records) => Ok(several(&api, &records, now)),
        Lookup::None => Err(ApiError::not_found(&id)),
    }
}

fn prefers_markdown(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut types = accepted.flat_map(|value| value.split(',')).filter_map(|kind| kind.split(';').next());
    let known = types.find(|kind| matches!(kind.trim(), "text/markdown" | "application/json" | "*/*"));
    known.is_some_and(|kind| kind.trim() == "text/markdown")
}

fn markdown_of(handoff: String) -> Response {
    ([(header::CONTENT_TYPE, MARKDOWN)], handoff).into_response()
}

/// What is known of a session, as JSON and as Markdown.
async fn tell(
    api: &Api,
    record: &Record,
    progress: ResumeProgress,
    now: Timestamp,
) -> Result<(ContextBody, String), ApiError> {
    let session = &record.session;
    let left = api.store.recall(session.instance_id.clone()).await?;
    let place = Place { here: session.host_machine == api.identity.current().name, ..place(api, record, now) };
    let context = reconstruct(session, &left, now);
    let command = resume_command(session, place.here, progress);
    let stale_after = api.settings.borrow().stale_after;
    let told = Handoff { session, context: &context, place: &place, command: command.as_deref(), now, stale_after };
    Ok((ContextBody::new(&told), told.markdown()))
}

fn several(api: &Api, records: &[Record], now: Timestamp) -> Response {
    let matches = records.iter().map(|record| body(api, record, now)).collect();
    (StatusCode::MULTIPLE_CHOICES, Json(Matches { matches })).into_response()
}

fn active(session: &Session, now: Timestamp, stale_after: Duration) -> ApiError {
    let ago = age(now.since(session.last_heartbeat));
    ApiError::new(
        ErrorCode::SessionActive,
        format!(
            "session {} is active on {}: its last heartbeat came {ago} ago",
            session.instance_id, session.host_machine
        ),
        format!("go on where it runs, or end it there and wait until it has been silent for {}", age(stale_after)),
    )
}

fn closed(session: &Session) -> ApiError {
    ApiError::new(
        ErrorCode::SessionClosed,
        format!("session {} is closed", session.instance_id),
        "with --closed (in JSON: \"closed\": true) a new session goes on from it",
    )
}

fn beyond(of: usize) -> ApiError {
    let candidates =
        if of == 1 { "there is only one candidate".to_owned() } else { format!("there are only {of} candidates") };
    ApiError::bad_request(format!("choice: {candidates}"))
}

fn nothing(hint: Option<&str>) -> ApiError {
    let message = match hint {
        Some(hint) => format!("no session that could be resumed is known as \"{hint}\""),
        None => "there is no session to resume".to_owned(),
    };
    let hint = "`sessiond list` shows what there is; a closed session is resumed by its whole id, with --closed";
    ApiError::new(ErrorCode::NotFound, message, hint)
}
