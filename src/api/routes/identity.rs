//! Who this host is, and changing that.

use std::sync::Arc;

use axum::extract::State;
use uuid::Uuid;

use crate::api::extract::{Body, Peer};
use crate::api::json::Json;
use crate::api::{Api, ApiError};
use crate::domain::MachineName;
use crate::wire::{ConflictBody, ErrorBody, IdentityRename, MachineIdentity};

/// Show the pinned identity.
#[utoipa::path(get, path = "/v1/identity", responses((status = 200, body = MachineIdentity)))]
pub async fn show(State(api): State<Arc<Api>>) -> Json<MachineIdentity> {
    Json(body(&api))
}

/// Give this host another name; its sessions move along.
#[utoipa::path(post, path = "/v1/identity/rename", request_body = IdentityRename, responses(
    (status = 200, body = MachineIdentity), (status = 400, body = ErrorBody)))]
pub async fn rename(
    State(api): State<Arc<Api>>,
    peer: Peer,
    Body(request): Body<IdentityRename>,
) -> Result<Json<MachineIdentity>, ApiError> {
    peer.may_tend(&api.about)?;
    let name = MachineName::parse(&request.name)?;
    if name != api.identity.current().name {
        let host_id = Uuid::from_u64_pair((api.random)(), (api.random)());
        // The pin first: should the second step not happen, the next start makes up for it.
        api.identity.rename(name.clone(), host_id, (api.clock)())?;
        let sessions = api.store.file_under(name.clone(), (api.clock)()).await?;
        tracing::warn!(%name, sessions, "this host was renamed");
    }
    Ok(Json(body(&api)))
}

/// Take this host's name over from the host that has it in central.
#[utoipa::path(post, path = "/v1/identity/replace", responses(
    (status = 200, body = MachineIdentity)))]
pub async fn replace(State(api): State<Arc<Api>>, peer: Peer) -> Result<Json<MachineIdentity>, ApiError> {
    peer.may_tend(&api.about)?;
    api.identity.replace()?;
    tracing::warn!("told to take this host's name over in central");
    Ok(Json(body(&api)))
}

pub fn body(api: &Api) -> MachineIdentity {
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
