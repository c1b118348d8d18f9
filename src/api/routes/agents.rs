//! Agents: what their hooks and status lines report.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use super::sessions::{body, resolve};
use crate::api::extract::{Body, Peer};
use crate::api::json::Json;
use crate::api::{Api, ApiError};
use crate::domain::Invalid;
use crate::domain::agent::Sign;
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
    let process = match report.sign {
        Sign::Found => Some(found(&api, peer, &request).await?),
        Sign::Exited => Some(exited(&api, &request)?),
        _ => running(&api, peer, &request).await,
    };
    let sighting = Sighting { report, process, host_machine: api.identity.current().name, lives: api.lives };
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

/// The process that was found, which must run and be the caller's: nothing else shows that there is an agent.
async fn found(api: &Arc<Api>, peer: Peer, request: &AgentReport) -> Result<Process, ApiError> {
    let pid = request.pid.ok_or_else(|| Invalid::new("pid", "a report of the sign found needs it"))?;
    let process = resolve(api, peer, pid).await.map_err(|error| Invalid::new("pid", error.to_string()))?;
    match request.pid_started {
        Some(told) if told != process.started => {
            Err(Invalid::new("pid_started", format!("process {pid} did not start then")).into())
        }
        _ => Ok(process),
    }
}

/// The process that ended. Its numbers are those of the caller: a process of another namespace is no session's, and then
/// the session counts as running elsewhere, or as stale.
fn exited(api: &Arc<Api>, request: &AgentReport) -> Result<Process, ApiError> {
    let (Some(pid), Some(started)) = (request.pid, request.pid_started) else {
        return Err(Invalid::new("pid_started", "a report of the sign exited needs it and pid").into());
    };
    let process = Process { pid, started };
    if (api.lives)(process) {
        return Err(Invalid::new("pid", format!("process {pid} runs")).into());
    }
    Ok(process)
}
