//! Resuming a session, and its reconstructed context.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::sessions::{body, named_process, place, several_matches};
use crate::api::extract::{Id, JsonBody, Params, Peer};
use crate::api::json::Json;
use crate::api::{Api, ApiError};
use crate::domain::context::reconstruct;
use crate::domain::handoff::{Handoff, ResumeProgress, resume_command};
use crate::domain::time::age;
use crate::domain::{Session, SessionLocation, Timestamp};
use crate::store::{Lookup, NewOwner, Record, ResumeTarget, Resumed, Resumption};
use crate::wire::{ContextBody, ErrorBody, ErrorCode, Matches, ResumeBody, ResumeRequest};

const MARKDOWN: &str = "text/markdown; charset=utf-8";

/// Resume a session in place, or register a successor that continues it.
#[utoipa::path(post, path = "/v1/resume", request_body = Option<ResumeRequest>, responses(
    (status = 200, body = ResumeBody), (status = 300, description = "several sessions match", body = Matches),
    (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, description = "the session is active, or closed", body = ErrorBody)))]
pub(crate) async fn resume(
    State(api): State<Arc<Api>>,
    peer: Peer,
    JsonBody(request): JsonBody<ResumeRequest>,
) -> Result<Response, ApiError> {
    let wanted = ResumeTarget {
        meanings: request.meanings()?,
        choice: request.choice()?,
        closed: request.closed.unwrap_or(false),
    };
    let successor = request.successor(api.identity.current().name, peer.uid)?;
    let process = named_process(&api, peer, request.pid).await?;
    let asked = api.ask_for_hint(&wanted.meanings).await?;
    let context = api.context(peer.caller());
    let (now, stale_after) = (context.now, context.stale_after);
    match api.store.resume(wanted, NewOwner { successor, process }, context).await? {
        Resumption::Done(resumed) => Ok(Json(resumed_body(&api, *resumed, now).await?).into_response()),
        Resumption::Several(records) => Ok(several_matches(&api, &records, now)),
        Resumption::Active(record) => Err(active(&record, now, stale_after)),
        Resumption::Closed(record) => Err(closed(&record.session)),
        Resumption::Beyond(candidates) => Err(no_such_choice(candidates)),
        Resumption::None => Err(no_match(request.hint.as_deref(), asked.note())),
    }
}

async fn resumed_body(api: &Api, resumed: Resumed, now: Timestamp) -> Result<ResumeBody, ApiError> {
    let (context, handoff) = reconstructed(api, &resumed.from, ResumeProgress::Resumed, now).await?;
    Ok(ResumeBody {
        session: body(api, &resumed.session, now),
        resumed: if resumed.is_taken_up() { "taken_up" } else { "new_session" }.to_owned(),
        found_by: resumed.found_by.as_str().to_owned(),
        from: body(api, &resumed.from, now),
        context,
        handoff,
    })
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ContextQuery {
    /// `json`, or `markdown` for the handoff. Default: the one that the Accept header prefers, else `json`.
    #[param(pattern = "^(json|markdown)$")]
    format: Option<String>,
}

/// Show the reconstructed context of the session with this id or unique prefix of an id.
#[utoipa::path(get, path = "/v1/sessions/{id}/context", params(("id" = String, Path, min_length = 1, max_length = 32), ContextQuery),
    responses((status = 200, content((ContextBody = "application/json"), (String = "text/markdown"))),
    (status = 300, description = "several sessions match", body = Matches),
    (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn context(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    Id(id): Id,
    Params(query): Params<ContextQuery>,
) -> Result<Response, ApiError> {
    let format = match query.format.as_deref() {
        None => accepted_format(&headers),
        Some("json") => Format::Json,
        Some("markdown") => Format::Markdown,
        Some(_) => return Err(ApiError::bad_request("format: it must be json or markdown")),
    };
    let now = (api.clock)();
    match api.find(&id).await? {
        Lookup::One(record) => {
            let (context, handoff) = reconstructed(&api, &record, ResumeProgress::NotResumed, now).await?;
            Ok(match format {
                Format::Json => Json(context).into_response(),
                Format::Markdown => ([(header::CONTENT_TYPE, MARKDOWN)], handoff).into_response(),
            })
        }
        Lookup::Several(records) => Ok(several_matches(&api, &records, now)),
        Lookup::None => Err(ApiError::not_found(&id)),
    }
}

/// The format of a context.
enum Format {
    Json,
    Markdown,
}

/// The first format that the Accept header lists; qualities are ignored.
fn accepted_format(headers: &HeaderMap) -> Format {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut types = accepted.flat_map(|value| value.split(',')).filter_map(|kind| kind.split(';').next());
    let first = types.find(|kind| matches!(kind.trim(), "text/markdown" | "application/json" | "*/*"));
    if first.is_some_and(|kind| kind.trim() == "text/markdown") { Format::Markdown } else { Format::Json }
}

/// A session's reconstructed context as JSON, and its handoff in Markdown.
async fn reconstructed(
    api: &Api,
    record: &Record,
    progress: ResumeProgress,
    now: Timestamp,
) -> Result<(ContextBody, String), ApiError> {
    let session = &record.session;
    let asked = api.ask_for_history(record).await?;
    let left = api.store.session_history(session.instance_id.clone()).await?;
    let place = place(api, record, now);
    let place = SessionLocation {
        here: session.host_machine == api.identity.current().name,
        // If central did not answer, it is unknown how old the history is.
        as_of: place.as_of.filter(|_| asked.note().is_none()),
        ..place
    };
    let context = reconstruct(session, &left, now);
    let agent = record.work.as_ref().and_then(|work| work.agent);
    let command = resume_command(session, agent, &place, progress);
    let stale_after = api.settings.borrow().stale_after;
    let handoff = Handoff { session, context: &context, place: &place, command: command.as_deref(), now, stale_after };
    Ok((ContextBody::new(&handoff), handoff.markdown()))
}

fn active(record: &Record, now: Timestamp, stale_after: Duration) -> ApiError {
    let session = &record.session;
    let ago = |at| age(now.since(at));
    let (witness, since) = match record.alive_as_of {
        Some(seen) => (format!("its daemon reported it {} ago", ago(seen)), "that daemon's last report"),
        None => (format!("its last heartbeat was {} ago", ago(session.last_heartbeat)), "its last heartbeat"),
    };
    ApiError::new(
        ErrorCode::SessionActive,
        format!("session {} is active on {}: {witness}", session.instance_id, session.host_machine),
        format!("continue it where it runs, or end it there and wait until {} after {since}", age(stale_after)),
    )
}

fn closed(session: &Session) -> ApiError {
    ApiError::new(
        ErrorCode::SessionClosed,
        format!("session {} is closed", session.instance_id),
        "with --closed (in JSON: \"closed\": true) a new session continues it",
    )
}

fn no_such_choice(candidates: usize) -> ApiError {
    ApiError::bad_request(match candidates {
        1 => "choice: there is only one candidate".to_owned(),
        _ => format!("choice: there are only {candidates} candidates"),
    })
}

/// `note`: why central has not answered.
fn no_match(hint: Option<&str>, note: Option<String>) -> ApiError {
    let mut message = match hint {
        Some(hint) => format!("no session that can be resumed matches \"{hint}\""),
        None => "there is no session to resume".to_owned(),
    };
    if let Some(note) = note {
        message.push_str(&format!("; {note}"));
    }
    let hint = "`sessiond list` shows the sessions; resume a closed one by its whole id, with --closed";
    ApiError::new(ErrorCode::NotFound, message, hint)
}
