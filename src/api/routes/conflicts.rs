//! Sessions that may get in each other's way.

use std::sync::Arc;

use axum::extract::State;

use super::sessions::body;
use crate::api::json::Json;
use crate::api::{Api, ApiError};
use crate::domain::Status;
use crate::domain::overlap::{Overlap, overlaps};
use crate::store::{Caller, Filter, OpContext, Record};
use crate::wire::OverlapBody;

/// List the live sessions that share a working tree, a branch or an epic, on any machines.
#[utoipa::path(get, path = "/v1/conflicts", responses((status = 200, body = Vec<OverlapBody>)))]
pub(crate) async fn list(State(api): State<Arc<Api>>) -> Result<Json<Vec<OverlapBody>>, ApiError> {
    let context = api.context(Caller::DAEMON);
    let _permit = api.response_budget.list_permit().await;
    let live = live(&api, context).await?;
    let shown = |overlap: Overlap| OverlapBody {
        kind: overlap.kind.as_str().to_owned(),
        place: overlap.place,
        sessions: live
            .iter()
            .filter(|record| overlap.sessions.contains(&record.session.instance_id))
            .map(|record| body(&api, record, context.now))
            .collect(),
    };
    Ok(Json(of(&live).into_iter().map(shown).collect()))
}

/// All active sessions.
pub(super) async fn live(api: &Api, context: OpContext) -> Result<Vec<Record>, ApiError> {
    let filter = Filter { status: Some(Status::Active), ..Filter::default() };
    Ok(api.store.list(filter, context).await?)
}

/// The overlaps of active sessions.
pub(super) fn of(live: &[Record]) -> Vec<Overlap> {
    overlaps(live.iter().map(|record| (&record.session, record.work.as_deref())))
}
