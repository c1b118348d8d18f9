//! The daemon itself: status, sync, metrics, and the OpenAPI document.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use tokio::time::{Instant, timeout_at};

use super::identity;
use crate::api::extract::JsonBody;
use crate::api::json::Json;
use crate::api::metrics::Figures;
use crate::api::openapi;
use crate::api::{Api, ApiError, SocketState};
use crate::domain::refresh::RefreshRule;
use crate::domain::text::one_line;
use crate::domain::{BlockedKind, LinkState, LinkStatus, RecordKind, Timestamp};
use crate::spool::quarantine::Quarantined;
use crate::spool::{SpoolMonitor, SpoolStatus};
use crate::store::{Backlog, Caller, StoreError};
use crate::wire::{
    BacklogBody, BlockedBody, CentralBody, ConfigBody, DaemonBody, ErrorBody, QuarantinedBody, SessionCounts,
    SocketBody, SpoolBody, SpoolFolderBody, StatusBody, StoreBody, SyncBody, SyncRequest,
};

/// Show the state of the daemon, its link to central, its backlog and its store.
#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = StatusBody)))]
pub(crate) async fn status(State(api): State<Arc<Api>>) -> Result<Json<StatusBody>, ApiError> {
    let context = api.context(Caller::DAEMON);
    let now = context.now;
    let settings = api.settings.borrow().clone();
    let backlog = api.store.backlog().await?;
    let counts = api.store.counts(context).await?;
    // Borrowed once: a writer that waits between two borrows would deadlock with them.
    let link = api.link.borrow().clone();
    Ok(Json(StatusBody {
        daemon: DaemonBody {
            version: api.daemon.version.to_owned(),
            pid: api.daemon.pid,
            started_at: api.daemon.started_at.to_string(),
            uptime_seconds: now.since(api.daemon.started_at).as_secs(),
        },
        machine: identity::body(&api),
        central: central(&link),
        backlog: backlog_body(&backlog, &link),
        parked: backlog.parked,
        sessions: SessionCounts { active: counts.active, stale: counts.stale, closed: counts.closed },
        store: StoreBody {
            path: api.daemon.store_path.clone(),
            bytes: api.store.bytes(),
            durability: api.daemon.durability.to_owned(),
            damage: api.store.damage().map(damage),
            sync_error: sync_error(&link),
        },
        config: ConfigBody { path: settings.config_path, error: settings.config_error },
        spool: spool(&api.spool),
        socket: socket(&api.socket.borrow()),
    }))
}

/// Push to central now. With `wait_ms` the response is sent when the backlog is empty, or after that time.
#[utoipa::path(post, path = "/v1/sync", request_body = Option<SyncRequest>, responses(
    (status = 200, body = SyncBody), (status = 400, body = ErrorBody)))]
pub(crate) async fn sync(
    State(api): State<Arc<Api>>,
    JsonBody(request): JsonBody<SyncRequest>,
) -> Result<Json<SyncBody>, ApiError> {
    let wait = request.validate()?;
    if api.link.borrow().state != LinkState::Off {
        // Heartbeats that are not due yet are pushed too.
        api.store.refresh(RefreshRule::EVERYTHING, (api.clock)()).await?;
    }
    api.push_now.notify_one();
    // Without a central the backlog never becomes empty.
    let wait = if api.link.borrow().state == LinkState::Off { Duration::ZERO } else { wait };
    let backlog = wait_until_synced(&api, Instant::now() + wait).await?;
    let link = api.link.borrow().clone();
    Ok(Json(SyncBody { central: central(&link), backlog: backlog_body(&backlog, &link), parked: backlog.parked }))
}

/// Returns the backlog once it is empty, or at the deadline.
async fn wait_until_synced(api: &Api, deadline: Instant) -> Result<Backlog, StoreError> {
    let mut commits = api.store.commits();
    loop {
        commits.borrow_and_update();
        let backlog = api.store.backlog().await?;
        if backlog.is_empty() || !matches!(timeout_at(deadline, commits.changed()).await, Ok(Ok(()))) {
            return Ok(backlog);
        }
    }
}

/// Export the metrics in the OpenMetrics text format.
#[utoipa::path(get, path = "/metrics", responses(
    (status = 200, body = String, content_type = "application/openmetrics-text")))]
pub(crate) async fn metrics(State(api): State<Arc<Api>>) -> Result<impl IntoResponse, ApiError> {
    let context = api.context(Caller::DAEMON);
    let now = context.now;
    let counts = api.store.counts(context).await?;
    let backlog = api.store.backlog().await?;
    let link = api.link.borrow().clone();
    let activity = {
        let mut read_to = api.metrics.waits_read_to().await;
        let activity = api.store.activity_figures(*read_to, api.daemon.started_at, context).await?;
        *read_to = Some(activity.read_to);
        activity
    };
    let figures = Figures { counts, activity, backlog: &backlog, link: &link, store_bytes: api.store.bytes() };
    let text = api.metrics.export(&figures, now);
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text))
}

/// The OpenAPI document, which does not list its own route.
pub(crate) async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], openapi::DOCUMENT)
}

/// How many quarantined requests the status lists, newest first.
const QUARANTINED_SHOWN: usize = 10;

fn spool(monitor: &SpoolMonitor) -> SpoolBody {
    let (folders, kept) = monitor.snapshot();
    let shown = |(_, folder): &&(PathBuf, SpoolStatus)| folder.reason.is_some() || folder.waiting + folder.ignored > 0;
    SpoolBody {
        waiting: folders.iter().map(|(_, folder)| folder.waiting).sum(),
        oldest_at: folders.iter().filter_map(|(_, folder)| oldest(folder)).min().map(|at| at.to_string()),
        ignored: folders.iter().map(|(_, folder)| folder.ignored).sum(),
        quarantined: kept.len() as u64,
        folders: folders.iter().filter(shown).map(|(path, folder)| spool_folder(path, folder)).collect(),
        read: folders.iter().map(|(path, _)| path.display().to_string()).collect(),
        quarantine: kept.into_iter().rev().take(QUARANTINED_SHOWN).map(quarantined).collect(),
    }
}

fn socket(state: &SocketState) -> SocketBody {
    SocketBody { path: state.path.clone(), inherited: state.inherited, error: state.error.clone() }
}

fn oldest(folder: &SpoolStatus) -> Option<Timestamp> {
    folder.oldest.filter(|_| folder.waiting > 0)
}

fn spool_folder(path: &Path, folder: &SpoolStatus) -> SpoolFolderBody {
    SpoolFolderBody {
        path: path.display().to_string(),
        waiting: folder.waiting,
        oldest_at: oldest(folder).map(|at| at.to_string()),
        reason: folder.reason.clone(),
        ignored: folder.ignored,
        ignored_reason: folder.ignored_reason.clone(),
    }
}

fn quarantined(kept: Quarantined) -> QuarantinedBody {
    QuarantinedBody {
        name: kept.name,
        uid: kept.uid,
        // The file name is chosen by the user who spooled the request.
        file: one_line(&kept.file.display().to_string()),
        reason: kept.reason,
        quarantined_at: Timestamp::from_micros(kept.at).to_string(),
    }
}

fn sync_error(link: &LinkStatus) -> Option<String> {
    let (since, error) = link.store_error.as_ref()?;
    Some(format!("sync cannot use the store since {since}: {error}; it retries by itself"))
}

fn damage(file: String) -> String {
    format!(
        "the store was damaged and rebuilt from what could be read (the log lists it); the damaged file is {file} in \
         the state folder; remove it once you do not need it"
    )
}

fn central(link: &LinkStatus) -> CentralBody {
    CentralBody {
        configured: link.state != LinkState::Off,
        state: link.state.as_str().to_owned(),
        since: link.since.to_string(),
        last_error: link.last_error.clone(),
        last_sync_at: link.last_sync_at.map(|at| at.to_string()),
        round_trip_ms: link.round_trip.map(|took| took.as_secs_f64() * 1000.0),
        listening: link.listening,
        clock_ahead_seconds: link.clock_ahead.map(|ahead| ahead as f64 / 1_000_000.0),
        unreadable_rows: link.unreadable_rows,
        outdated: link.outdated.clone(),
        long_transaction: link.long_transaction.clone(),
    }
}

fn backlog_body(backlog: &Backlog, link: &LinkStatus) -> BacklogBody {
    let blocked = |blocked: &BlockedKind| BlockedBody {
        kind: blocked.kind.as_str().to_owned(),
        table: blocked.kind.table().to_owned(),
        records: RecordKind::ALL
            .iter()
            .zip(backlog.records_of)
            .find(|(kind, _)| **kind == blocked.kind)
            .map_or(0, |(_, n)| n),
        reason: blocked.reason.clone(),
    };
    BacklogBody {
        sessions: backlog.sessions,
        records: backlog.records,
        oldest_at: backlog.oldest_at.map(|at| at.to_string()),
        blocked: link.blocked.iter().map(blocked).collect(),
    }
}
