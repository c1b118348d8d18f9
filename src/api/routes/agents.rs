//! Agents: the reports of their hooks and status lines.

use crate::domain::Process;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use super::sessions::{body, resolve};
use crate::api::extract::{JsonBody, Peer};
use crate::api::json::Json;
use crate::api::{Api, ApiError};
use crate::domain::Invalid;
use crate::domain::agent::AgentSignal;
use crate::domain::footer::{FooterForm, footer};
use crate::store::ReceivedReport;
use crate::wire::{AgentBody, AgentReport, ErrorBody};

/// Report an agent's heartbeat, start or end. The first report of an agent's conversation creates its session.
#[utoipa::path(post, path = "/v1/agents", request_body = AgentReport, responses(
    (status = 200, body = AgentBody), (status = 201, description = "a session was created", body = AgentBody),
    (status = 400, body = ErrorBody), (status = 404, description = "the report ends an agent that is not known", body = ErrorBody)))]
pub(crate) async fn report(
    State(api): State<Arc<Api>>,
    peer: Peer,
    JsonBody(request): JsonBody<AgentReport>,
) -> Result<(StatusCode, Json<AgentBody>), ApiError> {
    let report = request.validate(&api.settings.borrow().type_rules, (api.clock)())?;
    let process = match report.sign {
        AgentSignal::Found => Some(found(&api, peer, &request).await?),
        AgentSignal::Exited => Some(exited(&api, &request)?),
        _ => running(&api, peer, &request).await,
    };
    let received = ReceivedReport {
        report,
        process,
        host_machine: api.identity.current().name,
        lives: api.is_running,
        now: (api.clock)(),
    };
    let result = api.store.report_agent(received, api.context(peer.caller())).await?;
    let now = (api.clock)();
    let status = if result.created { StatusCode::CREATED } else { StatusCode::OK };
    let answer = AgentBody {
        session: body(&api, &result.record, now),
        footer: footer(&result.record.session, now, FooterForm::Plain),
        created: result.created,
    };
    Ok((status, Json(answer)))
}

/// The agent's process; `None` if it has ended or is hidden from the daemon, which does not invalidate the report.
async fn running(api: &Arc<Api>, peer: Peer, request: &AgentReport) -> Option<Process> {
    let process = resolve(api, peer, request.pid?).await.ok()?;
    request.pid_started.is_none_or(|reported| reported == process.started).then_some(process)
}

/// The discovered process, which must run and be the client's: nothing else proves that there is an agent.
async fn found(api: &Arc<Api>, peer: Peer, request: &AgentReport) -> Result<Process, ApiError> {
    let pid = request.pid.ok_or_else(|| Invalid::new("pid", "the sign `found` requires it"))?;
    let process = resolve(api, peer, pid).await.map_err(|error| Invalid::new("pid", error.to_string()))?;
    match request.pid_started {
        Some(reported) if reported != process.started => {
            Err(Invalid::new("pid_started", format!("process {pid} started at another time")).into())
        }
        _ => Ok(process),
    }
}

/// The process that ended. Its pid is not translated from the client's pid namespace: a process of another namespace
/// matches no session, which then stays as it is.
fn exited(api: &Arc<Api>, request: &AgentReport) -> Result<Process, ApiError> {
    let (Some(pid), Some(started)) = (request.pid, request.pid_started) else {
        return Err(Invalid::new("pid_started", "the sign `exited` requires pid and pid_started").into());
    };
    let process = Process { pid, started };
    if (api.is_running)(process) {
        return Err(Invalid::new("pid", format!("process {pid} still runs")).into());
    }
    Ok(process)
}
