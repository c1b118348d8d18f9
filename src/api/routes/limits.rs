//! Rate limits, as agents' status lines show them.

use std::sync::Arc;

use axum::extract::State;

use crate::api::json::Json;
use crate::api::{Api, ApiError};
use crate::store::Caller;
use crate::wire::LimitBody;

/// List the rate limits of agents' accounts, by machine, account and window, each as it was observed last.
#[utoipa::path(get, path = "/v1/limits", responses((status = 200, body = Vec<LimitBody>)))]
pub(crate) async fn list(State(api): State<Arc<Api>>) -> Result<Json<Vec<LimitBody>>, ApiError> {
    let context = api.context(Caller::DAEMON);
    let machines = api.store.limits(api.identity.current().name, context).await?;
    Ok(Json(machines.iter().flat_map(|machine| LimitBody::of_machine(machine, context.now)).collect()))
}
