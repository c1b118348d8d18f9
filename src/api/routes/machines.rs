//! Machines, computed from their sessions.

use std::sync::Arc;

use axum::extract::State;

use crate::api::json::Json;
use crate::api::{Api, ApiError};
use crate::domain::{MachineName, MachineSummary};
use crate::store::{Caller, KnownMachine};
use crate::wire::MachineBody;

/// List all machines that this host knows of, most recent activity first.
#[utoipa::path(get, path = "/v1/machines", responses(
    (status = 200, body = Vec<MachineBody>)))]
pub(crate) async fn list(State(api): State<Arc<Api>>) -> Result<Json<Vec<MachineBody>>, ApiError> {
    let context = api.context(Caller::DAEMON);
    let (now, stale_after) = (context.now, context.stale_after);
    let this = api.identity.current().name;
    let machines = api.store.machines(this.clone(), context).await?;
    let limits = api.store.limits(this.clone(), context).await?;
    let headroom = |machine: &MachineName| limits.iter().find(|of| of.machine == *machine)?.least_headroom(now);
    let reachable = |machine: &MachineSummary| {
        if machine.host_machine == this {
            return Some(true);
        }
        machine.last_seen.map(|seen| now.since(seen) < stale_after)
    };
    let reads_all = api.settings.borrow().scope.is_all();
    let body = |known: &KnownMachine| {
        let summary = &known.summary;
        let is_complete = reads_all || summary.host_machine == this;
        MachineBody::new(summary, reachable(summary), known.as_of, headroom(&summary.host_machine), is_complete)
    };
    Ok(Json(machines.iter().map(body).collect()))
}
