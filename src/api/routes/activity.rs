//! The activity history of a session, and that of all machines.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::sessions;
use crate::api::extract::{Id, Params};
use crate::api::json::Json;
use crate::api::{Api, ApiError};
use crate::domain::Timestamp;
use crate::domain::activity_history::{ActivityChange, HOUR};
use crate::store::{ActivityHistory, Lookup, Record};
use crate::wire::{ActivityHistoryBody, ActivityHoursBody, ActivityParams, ErrorBody, MachineHoursBody, Matches};

/// List when the session with this id or unique prefix of an id changed what it does, in order of time. Changes are kept
/// for 7 days, at most 2,000 of a session.
#[utoipa::path(get, path = "/v1/sessions/{id}/activity", params(("id" = String, Path, min_length = 1, max_length = 32), ActivityParams),
    responses((status = 200, body = ActivityHistoryBody), (status = 300, description = "several sessions match", body = Matches),
    (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    Id(id): Id,
    Params(params): Params<ActivityParams>,
) -> Result<Response, ApiError> {
    let (since, limit) = params.validate()?;
    let now = (api.clock)();
    let record = match api.find(&id).await? {
        Lookup::One(record) => record,
        Lookup::None => return Err(ApiError::not_found(&id)),
        Lookup::Several(records) => return Ok(sessions::several_matches(&api, &records, now)),
    };
    let _permit = api.response_budget.list_permit().await;
    let id = record.session.instance_id.clone();
    let ActivityHistory { mut changes, next } = api.store.activity_history(id, since, limit).await?;
    if next.is_none() {
        changes.extend(close_of(&record, changes.last()));
    }
    let as_of = sessions::place(&api, &record, now).as_of.unwrap_or(record.session.created_at);
    let body = ActivityHistoryBody {
        instance_id: record.session.instance_id.to_string(),
        changes: changes.into_iter().map(Into::into).collect(),
        next: next.map(|at| at.to_string()),
        as_of: as_of.to_string(),
    };
    Ok(Json(body).into_response())
}

/// What a closed session did ended with it, also where its machine's last change did not arrive.
fn close_of(record: &Record, last: Option<&ActivityChange>) -> Option<ActivityChange> {
    let last = last.filter(|last| last.activity.is_some())?;
    let at = record.session.closed_at.filter(|at| *at >= last.at)?;
    let context_percent = record.session.context_percent;
    Some(ActivityChange { at, activity: None, waiting_for: None, detail: None, context_percent })
}

/// How many hours are summed.
const HOURS: usize = 24;

/// Show what the sessions of all machines did in each of the last 24 hours.
#[utoipa::path(get, path = "/v1/activity/hours", responses((status = 200, body = ActivityHoursBody)))]
pub(crate) async fn hours(State(api): State<Arc<Api>>) -> Result<Json<ActivityHoursBody>, ApiError> {
    let now = (api.clock)();
    let hour = i64::try_from(HOUR.as_micros()).unwrap_or(i64::MAX);
    let this_hour = Timestamp::from_micros(now.micros().div_euclid(hour) * hour);
    let from = this_hour.minus(HOUR * (HOURS as u32 - 1));
    let _permit = api.response_budget.list_permit().await;
    let machines = api.store.activity_hours(from, HOURS, now).await?;
    let machine = |(host_machine, hours): (String, Vec<_>)| MachineHoursBody {
        host_machine,
        hours: hours.iter().map(Into::into).collect(),
    };
    let machines = machines.into_iter().map(machine).collect();
    Ok(Json(ActivityHoursBody { from: from.to_string(), machines, as_of: now.to_string() }))
}
