//! This host's identity: showing and changing it.

use std::sync::Arc;

use axum::extract::State;
use uuid::Uuid;

use crate::api::extract::{JsonBody, Peer};
use crate::api::json::Json;
use crate::api::{Api, ApiError};
use crate::domain::MachineName;
use crate::wire::{ConflictBody, ErrorBody, IdentityRename, MachineIdentity};

/// Show the pinned identity.
#[utoipa::path(get, path = "/v1/identity", responses((status = 200, body = MachineIdentity)))]
pub(crate) async fn show(State(api): State<Arc<Api>>) -> Json<MachineIdentity> {
    Json(body(&api))
}

/// Rename this host and move its sessions to the new name.
#[utoipa::path(post, path = "/v1/identity/rename", request_body = IdentityRename, responses(
    (status = 200, body = MachineIdentity), (status = 400, body = ErrorBody)))]
pub(crate) async fn rename(
    State(api): State<Arc<Api>>,
    peer: Peer,
    JsonBody(request): JsonBody<IdentityRename>,
) -> Result<Json<MachineIdentity>, ApiError> {
    peer.require_administrator(&api.daemon)?;
    let name = MachineName::parse(&request.name)?;
    if name != api.identity.current().name {
        let host_id = Uuid::from_u64_pair((api.random)(), (api.random)());
        // The pinned name first: if the second step fails, the next start repeats it.
        api.identity.rename(name.clone(), host_id, (api.clock)())?;
        let sessions = api.store.set_machine_name(name.clone(), (api.clock)()).await?;
        tracing::warn!(%name, sessions, "this host was renamed");
    }
    Ok(Json(body(&api)))
}

/// Take over this host's name from the host that is registered with it in central.
#[utoipa::path(post, path = "/v1/identity/replace", responses(
    (status = 200, body = MachineIdentity)))]
pub(crate) async fn replace(State(api): State<Arc<Api>>, peer: Peer) -> Result<Json<MachineIdentity>, ApiError> {
    peer.require_administrator(&api.daemon)?;
    api.identity.replace()?;
    tracing::warn!("this host's name will be taken over in central, as requested");
    Ok(Json(body(&api)))
}

/// The identity as the routes show it.
pub(crate) fn body(api: &Api) -> MachineIdentity {
    let identity = api.identity.current();
    let conflict = api.link.borrow().conflict.clone();
    MachineIdentity {
        name: identity.name.to_string(),
        host_id: identity.host_id.to_string(),
        pinned_at: identity.pinned_at.to_string(),
        conflict: conflict.map(|c| ConflictBody {
            host_id: c.host_id,
            machine_name: c.machine_name,
            last_seen: c.last_seen.map(|at| at.to_string()),
            message: c.message,
        }),
    }
}
