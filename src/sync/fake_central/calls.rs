//! The calls of the fake central, each as one transaction on its tables.

use super::*;

pub(super) fn handshake(
    state: &mut CentralState,
    host: &HostRegistration,
    judges_by_hosts: bool,
) -> Result<Accepted, CentralError> {
    let now = (state.clock)();
    let hosts = &mut state.tables.hosts;
    for id in host.former_host_ids.iter().filter(|id| **id != host.host_id) {
        if let Some(former) = hosts.get_mut(id)
            && host.own_claims.contains(&former.claim)
            && (!former.retired || former.replaced_by.is_some_and(|by| host.former_host_ids.contains(&by)))
        {
            former.retired = true;
            former.replaced_by = Some(host.host_id);
        }
    }
    for (id, rival) in hosts.iter_mut() {
        let namesake = *id != host.host_id && rival.name == host.machine && !rival.retired;
        let usurped = *id == host.host_id
            && (rival.retired || rival.batch >= host.acked_batch && !host.own_claims.contains(&rival.claim));
        if host.replace && namesake {
            rival.retired = true;
            rival.replaced_by = Some(host.host_id);
        } else if !host.replace && (namesake || usurped) {
            return Err(conflict(rival.replaced_by.unwrap_or(*id), rival));
        }
    }
    let batch = hosts.get(&host.host_id).map_or(0, |own| own.batch);
    // A daemon of an earlier version leaves the claim of a later one as it is.
    let stated = hosts.get(&host.host_id).and_then(|own| own.vouching_claim);
    let own = Entry {
        name: host.machine.clone(),
        claim: host.claim,
        batch,
        last_seen: now,
        retired: false,
        replaced_by: None,
        stale_after: Some(host.stale_after),
        vouching_claim: if judges_by_hosts { Some(host.claim) } else { stated },
    };
    hosts.insert(host.host_id, own);
    let mine = |(id, entry): (&Uuid, &Entry)| {
        let was_mine = entry.replaced_by == Some(host.host_id) || host.own_claims.contains(&entry.claim);
        (*id != host.host_id && host.former_host_ids.contains(id) && was_mine).then(|| entry.name.clone())
    };
    let former_names = hosts.iter().filter_map(mine).collect::<BTreeSet<_>>().into_iter().collect();
    let tables = state.tables.history.tables.clone();
    let timeline = state.restored.to_string();
    Ok(Accepted { batch, former_names, tables, timeline, marks_changes_only: true, missing_triggers: Vec::new() })
}

fn conflict(by: Uuid, entry: &Entry) -> CentralError {
    CentralError::Conflict(Conflict {
        host_id: by.to_string(),
        machine_name: entry.name.to_string(),
        last_seen: Some(entry.last_seen),
        message: format!(
            "another host ({by}) goes by the name {}; run `sessiond identity rename NAME` or `sessiond identity \
                 replace`",
            entry.name
        ),
    })
}

pub(super) fn push(
    state: &mut CentralState,
    me: &RegisteredHost,
    batch: Batch<'_>,
) -> Result<Vec<RowOutcome>, CentralError> {
    let now = (state.clock)();
    let own = state.tables.hosts.get_mut(&me.host_id).ok_or(CentralError::OutOfStep)?;
    if own.retired || own.batch >= batch.after && !me.own_claims.contains(&own.claim) {
        return Err(conflict(own.replaced_by.unwrap_or(me.host_id), own));
    }
    if own.claim != me.claim || own.batch != batch.after {
        return Err(CentralError::OutOfStep);
    }
    own.batch = batch.number;
    own.last_seen = now;
    if let Some(why) = state.broken.clone().filter(|_| !batch.sessions.is_empty()) {
        return Err(CentralError::Reject(why));
    }
    // A value that no schema of central accepts.
    let rejection =
        |what: String| Rejection { code: "22P05".into(), message: format!("{what} is not to central's taste (22P05)") };
    if let Some(bad) = batch.sessions.iter().find(|s| state.rejected.contains(s.instance_id.as_str())) {
        return Err(CentralError::Reject(rejection(bad.instance_id.to_string())));
    }
    if let Some(bad) = batch.records.iter().find(|r| state.rejected.contains(&r.record_type)) {
        return Err(CentralError::Reject(rejection(bad.record_id.to_string())));
    }
    let about = batch.sessions.iter().map(|s| &s.instance_id).chain(batch.records.iter().map(|r| &r.instance_id));
    if let Some(id) = about.into_iter().find(|id| state.locked.contains(id.as_str())) {
        return Err(CentralError::locked(format!("the row of {id} is locked (55P03)")));
    }
    state.pushes += 1;
    let Tables { sessions, times, history, work, activity, transaction, written, .. } = &mut state.tables;
    let mut applied: Vec<_> = batch.sessions.iter().map(|session| apply(sessions, times, me, session, now)).collect();
    let is_written = |(_, outcome): &(&TimedSession, &RowOutcome)| {
        matches!(outcome, RowOutcome::Stored | RowOutcome::ClosedElsewhere { .. })
    };
    let updated = batch.sessions.iter().zip(&applied).filter(is_written);
    written.extend(updated.map(|(session, _)| session.instance_id.to_string()));
    for (session, outcome) in batch.sessions.iter().zip(&mut applied) {
        apply_work(work, session, outcome, &history.tables, now);
        if let Some(pushed) = session.work.as_deref().filter(|_| outcome.has_work()) {
            activity.add(pushed, &history.tables, *transaction + 1, now);
        }
    }
    let pushed = batch.sessions.iter().zip(&applied);
    let absent: BTreeSet<_> =
        pushed.filter(|(_, a)| a.is_without_session()).map(|(s, _)| s.instance_id.as_str()).collect();
    applied.extend(history.apply(batch.records, |id| !absent.contains(id) && sessions.contains_key(id), now)?);
    Ok(applied)
}

fn apply(
    rows: &mut BTreeMap<String, Session>,
    times: &mut BTreeMap<String, ColumnTimes>,
    me: &RegisteredHost,
    offered: &TimedSession,
    now: Timestamp,
) -> RowOutcome {
    let session = &offered.session;
    let mut pushed = session.clone();
    let changes: ColumnTimes = offered.times.iter().map(|(column, at)| (column, at.min(now))).collect();
    let known = times.entry(session.instance_id.to_string()).or_default();
    pushed.last_heartbeat = pushed.last_heartbeat.min(now);
    pushed.closed_at = pushed.closed_at.map(|at| at.min(now));
    let Some(row) = rows.get_mut(session.instance_id.as_str()) else {
        rows.insert(session.instance_id.to_string(), pushed);
        *known = changes;
        return RowOutcome::Stored;
    };
    if row.created_at != pushed.created_at {
        return RowOutcome::IdCollision;
    }
    if row.host_machine != pushed.host_machine && !me.former_names.contains(&row.host_machine) {
        return RowOutcome::ForeignMachine { machine: row.host_machine.to_string() };
    }
    merge_columns((row, known), &pushed, &changes);
    merge(row, pushed, now);
    match (row.status, session.status) {
        (Status::Closed, Status::Active | Status::Stale) => {
            RowOutcome::ClosedElsewhere { closed_at: row.closed_at.unwrap_or(row.last_heartbeat) }
        }
        _ => RowOutcome::Stored,
    }
}

/// Stores the work of a session, unless a newer one is there.
fn apply_work(
    rows: &mut BTreeMap<String, SessionWork>,
    session: &TimedSession,
    outcome: &mut RowOutcome,
    tables: &HistoryTables,
    now: Timestamp,
) {
    let Some(work) = session.work.as_deref().filter(|_| outcome.has_work()) else { return };
    if tables.work != TableState::Usable {
        if *outcome == RowOutcome::Stored {
            *outcome = RowOutcome::StoredWithoutWork;
        }
        return;
    }
    let known = rows.get(work.instance_id.as_str());
    let known_agent = known.and_then(|known| known.agent);
    let agent = if tables.work_has_agent { work.agent } else { known_agent };
    let work = SessionWork { agent, recorded_at: work.recorded_at.min(now), changes: Vec::new(), ..work.clone() };
    if known.is_none_or(|known| work.recorded_at >= known.recorded_at || known.recorded_at > now) {
        rows.insert(work.instance_id.to_string(), work);
    }
}

/// Applies the later change of each column.
fn merge_columns((row, known): (&mut Session, &mut ColumnTimes), pushed: &Session, changes: &ColumnTimes) {
    for (column, at) in changes.iter() {
        if known.get(column).is_none_or(|known| at > known) {
            column.copy(pushed, row);
            known.set(column, at);
        }
    }
}

fn merge(row: &mut Session, pushed: Session, now: Timestamp) {
    row.host_machine = pushed.host_machine;
    if row.status != Status::Closed && pushed.status == Status::Closed {
        row.status = Status::Closed;
        row.closed_at = pushed.closed_at;
    }
    if pushed.last_heartbeat < row.last_heartbeat && row.last_heartbeat <= now {
        return;
    }
    row.last_heartbeat = pushed.last_heartbeat;
    if row.status != Status::Closed {
        row.status = pushed.status;
    }
}

pub(super) fn sweep(state: &mut CentralState, stale_after: Duration, interval: Duration) -> SweepResult {
    let now = (state.clock)();
    let tables = &mut state.tables;
    if tables.swept_at.is_some_and(|at| at > now.minus(interval)) {
        return SweepResult::default();
    }
    tables.swept_at = Some(now);
    let Tables { sessions, changed, hosts, .. } = tables;
    let limit = |host: &Entry| host.stale_after.unwrap_or(stale_after);
    let mut turned = 0;
    for (id, session) in sessions.iter_mut().filter(|(_, session)| session.status == Status::Active) {
        let by = changed.get(id).and_then(|last| last.by);
        let reporter = by.and_then(|by| hosts.get(&by)).filter(|host| !host.retired);
        let namesake = hosts.values().find(|host| !host.retired && host.name == session.host_machine);
        let allowed = reporter.or(namesake).map_or(stale_after, limit);
        let reported = reporter.is_some_and(|host| host.last_seen > now.minus(limit(host)));
        if session.last_heartbeat < now.minus(allowed) && !reported {
            session.status = Status::Stale;
            turned += 1;
        }
    }
    SweepResult { sessions: turned, more: false }
}

/// The rows of one page: so few that a pull takes several.
pub(super) const PAGE: usize = 2;

impl FakeCentral {
    /// The queries for pages that were answered, in order.
    pub fn pages(&self) -> Vec<PullQuery> {
        self.lock().pages.clone()
    }
}

pub(super) fn share_limits(
    tables: &mut Tables,
    me: &RegisteredHost,
    limits: &[AccountLimit],
) -> Result<(), CentralError> {
    let is_registered = tables.hosts.get(&me.host_id).is_some_and(|own| !own.retired && own.claim == me.claim);
    if is_registered && tables.history.tables.limits == TableState::Usable {
        tables.limits.insert(me.host_id, limits.to_vec());
    }
    Ok(())
}

pub(super) fn take_leases(
    state: &mut CentralState,
    me: &RegisteredHost,
    names: &[String],
    length: Duration,
) -> Result<Vec<String>, CentralError> {
    let now = (state.clock)();
    if state.tables.history.tables.leases != TableState::Usable {
        return Err(CentralError::schema_missing("central has no usable table sessiond_leases"));
    }
    let is_registered = state.tables.hosts.get(&me.host_id).is_some_and(|own| !own.retired && own.claim == me.claim);
    if !is_registered {
        return Ok(Vec::new());
    }
    let leases = &mut state.tables.leases;
    let mut taken = BTreeSet::new();
    for name in names {
        let is_free = leases.get(name).is_none_or(|(host, until)| *host == me.host_id || *until <= now);
        if is_free {
            leases.insert(name.clone(), (me.host_id, now.plus(length)));
            taken.insert(name.clone());
        }
    }
    Ok(taken.into_iter().collect())
}

pub(super) fn disown(tables: &mut Tables, me: &RegisteredHost, ids: &[InstanceId]) -> Result<(), CentralError> {
    for id in ids {
        let is_own = tables.changed.get(id.as_str()).is_some_and(|last| last.by == Some(me.host_id));
        let session = tables.sessions.get_mut(id.as_str());
        if let Some(session) = session.filter(|session| is_own && session.status == Status::Active) {
            session.status = Status::Stale;
        }
    }
    Ok(())
}

pub(super) fn hosts(tables: &Tables, only: Option<&[Uuid]>) -> Vec<HostSeen> {
    let is_asked = |id: &Uuid| only.is_none_or(|only| only.contains(id));
    let live = tables.hosts.iter().filter(|(id, host)| !host.retired && is_asked(id));
    let limits = |id: &Uuid| match tables.history.tables.limits {
        TableState::Usable => tables.limits.get(id).cloned().unwrap_or_default(),
        _ => Vec::new(),
    };
    live.map(|(id, host)| HostSeen {
        host_id: *id,
        machine: host.name.clone(),
        last_seen: host.last_seen,
        limits: limits(id),
    })
    .collect()
}

/// Whether every host of these judges sessions by the last contact of their hosts, apart from those that were not seen for a
/// day.
pub(super) fn all_judge_by_hosts(state: &CentralState, only: Option<&[Uuid]>) -> bool {
    let gone = (state.clock)().minus(Duration::from_secs(86_400));
    let is_asked = |id: &Uuid| only.is_none_or(|only| only.contains(id));
    let mut live = state.tables.hosts.iter().filter(|(id, host)| !host.retired && is_asked(id));
    live.all(|(_, host)| host.last_seen < gone || host.vouching_claim == Some(host.claim))
}
