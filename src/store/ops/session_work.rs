//! What a session does and works on: applying what its agent reports of it.
//!
//! A new version is written only if something changed that other machines see; a report that only says again what is
//! known writes the time of its event, which the order of events depends on.

use rusqlite::{Connection, OptionalExtension};

use crate::domain::activity::{ActivityEvent, ActivityTracker};
use crate::domain::agent::{AgentKind, AgentName};
use crate::domain::work::WorkUpdate;
use crate::domain::{InstanceId, SessionWork, Status, Timestamp, WorkSummary};
use crate::store::error::StoreError;
use crate::store::op::Op;
use crate::store::ops::lifecycle;
use crate::store::sync_state::activity_history;
use crate::store::tables::session_record::Record;
use crate::store::tables::session_work::{self, OwnWork};
use crate::store::tables::sessions;

/// What a report says of a session's work.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct WorkReport<'a> {
    /// Which agent reports; `None` leaves it as it is.
    pub agent: Option<AgentName>,
    pub activity: Option<&'a ActivityEvent>,
    pub update: Option<&'a WorkUpdate>,
    /// When the update was made.
    pub at: Option<Timestamp>,
}

/// What became of a report.
#[derive(Debug, Default)]
pub(in crate::store) struct WorkChange {
    /// The new summary, if there is a new version.
    pub summary: Option<Box<WorkSummary>>,
    /// The activity changed, which other machines should see at once.
    pub is_urgent: bool,
}

/// Applies a report that arrived at `now`.
pub(in crate::store) fn apply(
    db: &Connection,
    id: &InstanceId,
    report: &WorkReport<'_>,
    now: Timestamp,
) -> Result<WorkChange, StoreError> {
    let before = session_work::own(db, id)?;
    let kind = kind(db, id)?;
    let agent = report.agent.or(before.summary.agent);
    let is_same = (kind, agent) == (before.summary.kind, before.summary.agent);
    if report.activity.is_none() && report.update.is_none() && is_same {
        return Ok(WorkChange::default());
    }
    // What ended says nothing of what begins.
    let going_on = before.tracker.clone().filter(|_| !before.summary.activity_ended);
    let tracker = match report.activity {
        Some(event) => ActivityTracker::after(going_on.as_ref(), event.clone(), now).or(going_on),
        None => before.tracker.clone(),
    };
    let activity_ended = before.summary.activity_ended && report.activity.is_none();
    let mut snapshot = before.snapshot.clone();
    if let Some(update) = report.update {
        snapshot.apply(update.clone(), report.at.unwrap_or(now).min(now));
    }
    let activity = tracker.as_ref().map(|tracker| tracker.activity.clone());
    let instance_id = id.clone();
    let work = SessionWork {
        instance_id,
        activity,
        activity_ended,
        kind,
        agent,
        snapshot,
        recorded_at: now,
        changes: Vec::new(),
    };
    save(db, &before, tracker, work)
}

/// Nothing vouches for a session any more: its activity ended, and is kept as the last one. Returns the summary, if it
/// changed.
pub(in crate::store) fn end_activity(op: &Op<'_>, record: &Record) -> Result<Option<Box<WorkSummary>>, StoreError> {
    let goes_on = record.work.as_ref().is_some_and(|work| work.activity.is_some() && !work.activity_ended);
    if !goes_on {
        return Ok(None);
    }
    let before = session_work::own(op.db, &record.session.instance_id)?;
    let Some((work, _)) = session_work::shared(op.db, &record.session.instance_id)? else { return Ok(None) };
    let ended = SessionWork { activity_ended: true, recorded_at: op.now, ..work };
    Ok(save(op.db, &before, before.tracker.clone(), ended)?.summary)
}

fn save(
    db: &Connection,
    before: &OwnWork,
    tracker: Option<ActivityTracker>,
    work: SessionWork,
) -> Result<WorkChange, StoreError> {
    // A later version has a later time, even where the clock was set back.
    let after_the_last = before.recorded_at.map(|at| Timestamp::from_micros(at.micros().saturating_add(1)));
    let recorded_at = after_the_last.map_or(work.recorded_at, |last| last.max(work.recorded_at));
    let summary = work.summary();
    let SessionWork { instance_id: id, snapshot, recorded_at: now, .. } = work;
    let is_urgent =
        summary.activity != before.summary.activity || summary.activity_ended != before.summary.activity_ended;
    let snapshot_changed = snapshot != before.snapshot;
    if before.version > 0 && !snapshot_changed && summary == before.summary {
        if let Some(tracker) = tracker.filter(|tracker| Some(tracker) != before.tracker.as_ref()) {
            session_work::save_tracker(db, &id, &tracker)?;
        }
        return Ok(WorkChange::default());
    }
    let own = OwnWork {
        tracker,
        snapshot,
        summary: summary.clone(),
        recorded_at: Some(recorded_at),
        version: before.version + 1,
    };
    session_work::save(db, &id, &own, snapshot_changed)?;
    if is_urgent {
        let current = summary.activity.as_ref().filter(|_| !summary.activity_ended);
        activity_history::record_activity(db, &id, current, now)?;
    }
    Ok(WorkChange { summary: Some(Box::new(summary)), is_urgent })
}

/// Records what a client states of a session's work.
///
/// # Errors
/// As for a heartbeat; `Closed` for a closed session.
pub(in crate::store) fn record(op: &Op<'_>, id: &str, update: &WorkUpdate) -> Result<SessionWork, StoreError> {
    let mut record = lifecycle::owned(op, id)?;
    if record.session.status == Status::Closed {
        return Err(StoreError::Closed(id.to_owned()));
    }
    let report = WorkReport { update: Some(update), at: Some(op.now), ..WorkReport::default() };
    if apply(op.db, &record.session.instance_id, &report, op.now)?.summary.is_some() {
        sessions::save(op, &mut record)?;
    }
    let work = session_work::shared(op.db, &record.session.instance_id)?;
    work.map(|(work, _)| work).ok_or_else(|| StoreError::Bug(format!("the work of {id} was not stored").into()))
}

/// How the session's agent runs.
fn kind(db: &Connection, id: &InstanceId) -> Result<Option<AgentKind>, StoreError> {
    let kind: Option<Option<String>> = db
        .prepare_cached("SELECT kind FROM sessions WHERE instance_id = ?1")?
        .query_row([id.as_str()], |row| row.get(0))
        .optional()?;
    Ok(kind.flatten().as_deref().and_then(AgentKind::parse))
}
