//! Agents: what their hooks and status lines report.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use super::sessions::{body, resolve};
use crate::api::extract::{Body, Peer};
use crate::api::json::Json;
use crate::api::{Api, ApiError};
use crate::domain::footer::footer;
use crate::store::{Process, Sighting};
use crate::wire::{AgentBody, AgentReport, ErrorBody};

/// Report a sign of life of an agent; whichever of its voices comes first begins its session.
#[utoipa::path(post, path = "/v1/agents", request_body = AgentReport, responses(
    (status = 200, body = AgentBody), (status = 201, description = "a session began", body = AgentBody),
    (status = 400, body = ErrorBody), (status = 404, description = "the end of an agent that is not known", body = ErrorBody)))]
pub async fn report(
    State(api): State<Arc<Api>>,
    peer: Peer,
    Body(request): Body<AgentReport>,
) -> Result<(StatusCode, Json<AgentBody>), ApiError> {
    let (report, stale_after) = {
        let settings = api.settings.borrow();
        (request.validate(&settings.type_rules)?, settings.stale_after)
    };
    let sighting = Sighting {
        report,
        process: running(&api, peer, &request).await,
        host_machine: api.identity.current().name,
        lives: api.lives,
    };
    let draws = std::array::from_fn(|_| (api.random)());
    let sighted = api.store.sight(sighting, peer.caller(), draws, (api.clock)(), stale_after).await?;
    let now = (api.clock)();
    let status = if sighted.created { StatusCode::CREATED } else { StatusCode::OK };
    let answer = AgentBody {
        session: body(&api, &sighted.record, now),
        footer: footer(&sighted.record.session, now, false),
        created: sighted.created,
    };
    Ok((status, Json(answer)))
}

/// An agent's process may have ended meanwhile, or be hidden from the daemon: its session is recorded all the same.
async fn running(api: &Arc<Api>, peer: Peer, request: &AgentReport) -> Option<Process> {
    let process = resolve(api, peer, request.pid?).await.ok()?;
    request.pid_started.is_none_or(|told| told == process.started).then_some(process)
}
